// Command devstack runs a real Vault with the plugin in it, a real nats-server and a
// small OIDC issuer on loopback addresses: to show the main job, and to develop.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

const usage = `Usage: devstack COMMAND

  demo           show the main job, each step with its real output
  dev            run the servers until Ctrl-C, ready to try
  tools [NAME]   find or build the servers and the linters, and print their paths
  clean-tools    remove those that were built
  record FOLDER  run the demo, and keep a part of it as demo.cast and demo.svg

for what the demo and dev run, against the servers that they started:

  token NAME=VALUE...        a workload's token with these claims, from $ISSUER
  pub [FLAGS] SUBJECT TEXT   publish a message to $NATS_URL
  sub [FLAGS] SUBJECT        print the messages that come from $NATS_URL
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "devstack:", err)
		os.Exit(1)
	}
}

// errUsage is for a command line that makes no sense.
var errUsage = errors.New("usage")

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	command, args := args[0], args[1:]
	switch command {
	case "demo":
		return demo(ctx, os.Stdout)
	case "dev":
		return dev(ctx, os.Stdout)
	case "tools":
		return tools(ctx, args)
	case "clean-tools":
		return cleanTools()
	case "record":
		if len(args) != 1 {
			return errUsage
		}
		return record(ctx, args[0])
	case "token":
		return token(ctx, args)
	case "pub":
		return publish(args)
	case "sub":
		return subscribe(ctx, args)
	}
	return errUsage
}

// tools prints where each tool is, and builds those that are nowhere: those that are named, or all but what only
// a release needs.
func tools(ctx context.Context, names []string) error {
	wanted := stack.Tools
	if len(names) > 0 {
		wanted = nil
		all := slices.Concat(stack.Tools, stack.ReleaseTools)
		for _, name := range names {
			i := slices.IndexFunc(all, func(t stack.Tool) bool { return t.Name == name })
			if i < 0 {
				return fmt.Errorf("there is no tool %q", name)
			}
			wanted = append(wanted, all[i])
		}
	}
	paths := make([]string, len(wanted))
	builds, ctx := errgroup.WithContext(ctx)
	builds.SetLimit(2) // so that one is downloaded or linked while the other is compiled
	for i, tool := range wanted {
		builds.Go(func() (err error) {
			paths[i], err = tool.Path(ctx)
			return err
		})
	}
	if err := builds.Wait(); err != nil {
		return err
	}
	for _, path := range paths {
		fmt.Println(path)
	}
	return nil
}

func cleanTools() error {
	dir, err := stack.CacheDir()
	if err != nil {
		return err
	}
	fmt.Println("removing", dir)
	return os.RemoveAll(dir)
}
