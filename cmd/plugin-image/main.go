// Plugin-image makes the OCI image of the plugin from programs that were built before, for Vault's containerized
// plugins and for servers of OpenBao that fetch their plugins. It needs no container engine.
//
// The image has one manifest a platform, with the program in its root directory, and the roots of public certificates.
// It is the same, byte by byte, whenever it is made from the same programs, version, revision and time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const usage = `Usage: plugin-image -version VERSION [options] PLATFORM=PROGRAM...

Makes an OCI image of the plugin's programs, such as linux/amd64=PATH, and prints the
checksums that Vault and OpenBao ask for.

Options:
`

type options struct {
	version  string // of the plugin, with the v
	revision string // the commit that the programs were built from
	source   string // where the source is
	created  time.Time
	layout   string // a folder
	push     string // a repository
	programs []program
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2)
	}
	if err := run(ctx, o, os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "plugin-image:", err)
		os.Exit(1)
	}
}

func parse(args []string, out io.Writer) (options, error) {
	var o options
	var created int64
	flags := flag.NewFlagSet("plugin-image", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&o.version, "version", "", "`version` of the programs, as their -version shows it")
	flags.StringVar(&o.revision, "revision", "", "`commit` that they were built from")
	flags.StringVar(&o.source, "source", "https://github.com/nats-vault/vault-plugin-auth-nats", "`URL` of their source")
	flags.Int64Var(&created, "created", 0, "time of the image, in `seconds` since 1970: the commit's, so that it is the same whenever it is made")
	flags.StringVar(&o.layout, "layout", "", "`folder` to write the image to, as an OCI image layout, in place of one that is there")
	flags.StringVar(&o.push, "push", "", "`repository` to push the image to, such as ghcr.io/example/vault-plugin-auth-nats")
	flags.Usage = func() {
		_, _ = fmt.Fprint(out, usage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.created = time.Unix(created, 0).UTC()
	err := o.setPrograms(flags.Args())
	if err != nil {
		_, _ = fmt.Fprintln(out, "plugin-image:", err)
	}
	return o, err
}

func (o *options) setPrograms(args []string) error {
	if !strings.HasPrefix(o.version, "v") {
		return fmt.Errorf("-version has to be that of the programs, with the v: %q", o.version)
	}
	if len(args) == 0 {
		return errors.New("no PLATFORM=PROGRAM is given")
	}
	for _, arg := range args {
		platform, path, _ := strings.Cut(arg, "=")
		p, err := readProgram(platform, path)
		if err != nil {
			return err
		}
		o.programs = append(o.programs, p)
	}
	return nil
}

// run makes the image, writes and pushes it as it was asked to, and prints its checksums.
func run(ctx context.Context, o options, out io.Writer) error {
	made, err := makeImage(o)
	if err != nil {
		return err
	}
	if o.layout != "" {
		if err := made.write(o.layout); err != nil {
			return err
		}
	}
	if o.push != "" {
		if err := made.push(ctx, o.push, o.version); err != nil {
			return err
		}
	}
	return made.print(out, o)
}
