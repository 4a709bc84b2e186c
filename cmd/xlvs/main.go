// Command xlvs is a Linux Virtual Server director. See README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"xlvs/control/config"
)

// version is set by the linker (make build).
var version = "development"

// Exit status: 0 done, 1 failed, 2 wrong usage or invalid configuration.
const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError marks what the caller did wrong.
type usageError struct{ error }

// exitStatus is that of a command which has said on its own what is wrong, or of this program run again.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	var again exitStatus
	if errors.As(err, &again) {
		os.Exit(int(again))
	}
	fmt.Fprintln(os.Stderr, message(err))
	os.Exit(statusOf(err))
}

// statusOf is the exit status for an error.
func statusOf(err error) int {
	var usage usageError
	var invalid config.Errors
	if errors.As(err, &usage) || errors.As(err, &invalid) {
		return exitUsage
	}
	return exitFailed
}

// message puts the program's name before an error, except before configuration errors, whose lines
// start with file:line:column so that editors can jump there.
func message(err error) string {
	var invalid config.Errors
	if errors.As(err, &invalid) {
		return err.Error()
	}
	return "xlvs: " + err.Error()
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "xlvs",
		Short:         "A Linux Virtual Server director on AF_XDP",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			msg := fmt.Sprintf("there is no command %q; `xlvs help` lists them", args[0])
			if s := c.SuggestionsFor(args[0]); len(s) > 0 {
				msg = fmt.Sprintf("there is no command %q; did you mean %s?", args[0], strings.Join(s, " or "))
			}
			return usageError{errors.New(msg)}
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cmd.SetVersionTemplate("xlvs {{.Version}}\n")
	cmd.SuggestionsMinimumDistance = 2 // cobra's own default, which it sets only where it is not needed
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; `%s --help` shows its flags", err, c.CommandPath())}
	})
	cmd.CompletionOptions.HiddenDefaultCmd = true
	cmd.AddCommand(runCmd(), checkCmd(), replayCmd(), testCmd(), explainCmd(), statusCmd(), servicesCmd(), backendsCmd(), reloadCmd(), demoCmd(), serveCmd(), decapCmd(), perfCmd(), versionCmd())
	return cmd
}

func versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		Run: func(c *cobra.Command, _ []string) { fmt.Fprintln(c.OutOrStdout(), "xlvs", version) },
	}
}

// noArgs refuses arguments as wrong usage.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	given := fmt.Sprintf("%q was given", strings.Join(args, " "))
	if len(args) == 1 && c.Flags().Lookup("config") != nil {
		given += fmt.Sprintf("; write %s -c %s", c.CommandPath(), args[0])
	}
	return usageError{fmt.Errorf("%s takes no arguments, but %s", c.Name(), given)}
}

// plural counts things: "1 service", "2 services".
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// configFlag adds -c to a command.
func configFlag(c *cobra.Command, file *string) {
	c.Flags().StringVarP(file, "config", "c", "", "configuration `FILE` (required)")
}

// needConfig refuses a command without -c.
func needConfig(c *cobra.Command, file string) error {
	if file == "" {
		return usageError{fmt.Errorf("%s needs a configuration file: -c FILE", c.Name())}
	}
	return nil
}
