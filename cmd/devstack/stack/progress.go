package stack

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// How often the screen says how far builds are: on a terminal one line is written anew, elsewhere one is added.
const (
	terminalPeriod = 100 * time.Millisecond
	logPeriod      = 30 * time.Second
)

// A screen tells the person at it what takes so long.
type screen struct {
	out      io.Writer
	terminal bool

	mutex  sync.Mutex
	builds []*progress // that run, in the order in which they began
	shown  time.Time   // when the line about them was
	line   bool        // it stands there, without an end
}

var stderr = &screen{out: os.Stderr, terminal: term.IsTerminal(int(os.Stderr.Fd()))}

// notice writes a line of its own.
func notice(format string, args ...any) {
	stderr.mutex.Lock()
	defer stderr.mutex.Unlock()
	stderr.clear()
	fmt.Fprintf(stderr.out, "devstack: "+format+"\n", args...)
}

// clear removes the line about the builds. The caller holds the mutex.
func (s *screen) clear() {
	if s.line {
		fmt.Fprint(s.out, "\r\x1b[K")
		s.line = false
	}
}

// show writes the line about the builds. The caller holds the mutex.
func (s *screen) show() {
	s.shown = time.Now()
	var parts []string
	for _, build := range s.builds {
		parts = append(parts, build.String())
	}
	text := fmt.Sprintf("devstack: %s; %s", strings.Join(parts, ", "), time.Since(s.builds[0].began).Round(time.Second))
	if !s.terminal {
		fmt.Fprintln(s.out, text)
		return
	}
	width, _, err := term.GetSize(int(os.Stderr.Fd()))
	if err != nil {
		width = 0
	}
	s.clear()
	fmt.Fprint(s.out, fitting(text, width))
	s.line = true
}

// fitting cuts what would be broken into two lines, which could not be written anew. Some terminals have a width of 0:
// they do not say.
func fitting(text string, width int) string {
	if width > 0 && len(text) >= width {
		return text[:width-1]
	}
	return text
}

// A progress is how far a go build is. What is compiled is counted, and all that it imports: of that, some was in Go's
// build cache, and go build does not name it.
type progress struct {
	screen *screen
	name   string
	began  time.Time

	imports    map[string][]string // of each package of the program, by its path
	done       map[string]bool
	downloaded int    // modules
	rest       string // of the output, behind its last whole line
	said       strings.Builder
}

func (s *screen) follow(name string) *progress {
	p := &progress{screen: s, name: name, began: time.Now(), done: map[string]bool{}}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if len(s.builds) == 0 {
		s.shown = time.Now()
	}
	s.builds = append(s.builds, p)
	return p
}

// unseen follows a build that is not worth telling of.
func unseen() *progress { return (&screen{out: io.Discard}).follow("") }

func (p *progress) end() {
	s := p.screen
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.clear()
	for i, build := range s.builds {
		if build == p {
			s.builds = append(s.builds[:i:i], s.builds[i+1:]...)
		}
	}
}

func (p *progress) String() string {
	switch {
	case p.imports == nil && p.downloaded > 0:
		return fmt.Sprintf("%s: %d modules downloaded", p.name, p.downloaded)
	case p.imports == nil:
		return p.name + ": looking for modules"
	case p.compiled():
		return p.name + ": linking"
	}
	return fmt.Sprintf("%s: %d of %d packages", p.name, len(p.done), len(p.imports))
}

// compiled says whether the last package is being compiled; go build does not name the step after it.
func (p *progress) compiled() bool { return p.imports != nil && len(p.done) == len(p.imports) }

// Write takes what go list and go build print to standard error.
func (p *progress) Write(text []byte) (int, error) {
	p.screen.mutex.Lock()
	defer p.screen.mutex.Unlock()
	lines := strings.SplitAfter(p.rest+string(text), "\n")
	p.rest = lines[len(lines)-1]
	for _, line := range lines[:len(lines)-1] {
		p.take(line)
	}
	period := logPeriod
	if p.screen.terminal {
		period = terminalPeriod
	}
	if time.Since(p.screen.shown) >= period || p.compiled() {
		p.screen.show()
	}
	return len(text), nil
}

func (p *progress) take(line string) {
	pkg := strings.TrimSpace(line)
	_, isPackage := p.imports[pkg]
	switch {
	case isPackage:
		p.compiles(pkg)
	case strings.HasPrefix(line, "go: downloading "):
		p.downloaded++
	default:
		p.said.WriteString(line)
	}
}

// compiles counts a package whose compilation begins, and all below it, which has ended.
func (p *progress) compiles(pkg string) {
	imports, isPackage := p.imports[pkg]
	if p.done[pkg] || !isPackage {
		return
	}
	p.done[pkg] = true
	for _, imported := range imports {
		p.compiles(imported)
	}
}

// complaint is what was printed beside the names of packages.
func (p *progress) complaint() string { return strings.TrimSpace(p.said.String() + p.rest) }

// count has go list name the packages of a program, which downloads their modules too.
func (p *progress) count(ctx context.Context, dir, pkg string, flavour flavour) error {
	args := append([]string{"list", "-deps", "-f", `{{.ImportPath}} {{join .Imports " "}}`}, flavour.args()...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir, cmd.Env, cmd.Stderr = dir, buildEnv(), p
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go list %s: %w\n%s", pkg, err, p.complaint())
	}
	imports := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		imports[fields[0]] = fields[1:]
	}
	delete(imports, "unsafe") // which has no code
	p.screen.mutex.Lock()
	defer p.screen.mutex.Unlock()
	p.imports = imports
	return nil
}
