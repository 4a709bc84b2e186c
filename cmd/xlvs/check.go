package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"xlvs/control/config"
)

func checkCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "check -c FILE", Short: "Validate a configuration file", Args: noArgs,
		Long: "Validate a configuration file without touching the machine. Each fault is printed as\n" +
			"file:line:column with what to do about it; the exit status is then 2.",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := needConfig(c, file); err != nil {
				return err
			}
			conf, err := config.Load(file)
			if err != nil {
				return err
			}
			backends := 0
			for _, s := range conf.Services {
				backends += len(s.Backends)
			}
			fmt.Fprintf(c.OutOrStdout(), "%s: valid: %s, %s, %s\n",
				file, plural(len(conf.Interfaces), "interface"), plural(len(conf.Services), "service"), plural(backends, "backend"))
			return nil
		},
	}
	configFlag(cmd, &file)
	return cmd
}
