package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long a server may take to end in good order; Vault's plugins count.
const stopGrace = 15 * time.Second

// A process is a running server. Its output goes to a file, so that nothing is lost
// when it or its parent is killed.
type process struct {
	name    string
	logPath string
	cmd     *exec.Cmd
	done    chan struct{} // closed when the process has ended
	err     error         // how it ended; read after done
}

// launch runs functions on one thread that never ends. Linux sends a child its
// parent-death signal when the thread that made it ends, and Go ends threads as it
// sees fit.
var launch = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// startProcess runs a program in a folder of its own, in which it also has its home
// and its temporary files. It sees only env of the environment, and PATH.
func startProcess(dir, name string, env []string, program string, args ...string) (*process, error) {
	p := &process{name: name, logPath: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	temp := filepath.Join(dir, "tmp")
	if err := os.MkdirAll(temp, 0o700); err != nil {
		return nil, err
	}
	p.cmd = exec.Command(program, args...)
	p.cmd.Dir = dir
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + temp}, env...)
	p.cmd.Stdout = log
	p.cmd.Stderr = log
	p.cmd.SysProcAttr = childAttributes()

	started := make(chan error)
	launch() <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		// The group outlives its leader while a child, such as a plugin, is left in it.
		// Later its number may be another's.
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		close(p.done)
	}()
	return p, nil
}

// ready waits until the condition holds, or the process has ended.
func (p *process) ready(ctx context.Context, condition func() error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-p.done:
			cancel(errors.New("it ended: " + p.ending()))
		case <-ctx.Done():
		}
	}()
	if err := WaitFor(ctx, "wait for "+p.name, condition); err != nil {
		return fmt.Errorf("%w (%w); its last lines:\n%s", err, context.Cause(ctx), p.tail(20))
	}
	return nil
}

func (p *process) ending() string {
	if p.err != nil {
		return p.err.Error()
	}
	return "exit status 0"
}

// stop ends the process in good order, and by force when that takes too long.
func (p *process) stop() { p.stopWithin(stopGrace) }

func (p *process) stopWithin(grace time.Duration) {
	if p == nil {
		return
	}
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(grace):
		p.kill()
	}
}

// kill ends the process and the ones it started at once, as kill -9 does.
func (p *process) kill() {
	if p == nil {
		return
	}
	p.signal(syscall.SIGKILL)
	<-p.done
}

// signal sends a signal to the process itself; one that has ended has no use for it.
func (p *process) signal(signal syscall.Signal) {
	_ = p.cmd.Process.Signal(signal)
}

// running says whether the process was started and has not ended.
func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// output returns all that the process has printed so far, over its restarts too.
func (p *process) output() string {
	if p == nil {
		return ""
	}
	text, err := os.ReadFile(p.logPath)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (p *process) tail(lines int) string {
	all := strings.Split(strings.TrimSpace(p.output()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// makeDir makes the folder that a server has for itself. Its path is short: a
// plugin's socket lies below it, and a socket's path has room for a hundred bytes.
func makeDir(name string) (string, error) {
	return os.MkdirTemp("", "devstack-"+name+"-")
}
