package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"xlvs/control/api"
)

func explainCmd() *cobra.Command {
	var show showFlags
	var file, proto, src, dst string
	var down []string
	cmd := &cobra.Command{
		Use: "explain [-c FILE] --proto tcp --src ADDRESS:PORT --dst ADDRESS:PORT", Short: "Say where a new flow would go, and why", Args: noArgs,
		Long: "Say which service a new flow belongs to, which slot of its table the flow's hash selects, and which backend has that\n" +
			"slot. With -c it is worked out from the file, all backends being up but those of --down; else the running director is asked.",
		RunE: func(c *cobra.Command, _ []string) error {
			if show.output != "table" && show.output != "json" {
				return usageError{fmt.Errorf("-o %s: only table and json are possible", show.output)}
			}
			q, err := api.NewQuestion(proto, src, dst)
			if err != nil {
				return usageError{fmt.Errorf("--%w", err)}
			}
			x, err := answer(c, q, show.api, file, down)
			if err != nil {
				return err
			}
			if show.output == "json" {
				enc := json.NewEncoder(c.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(x)
			}
			printExplanation(c.OutOrStdout(), q, x)
			return nil
		},
	}
	show.add(cmd)
	cmd.Flags().StringVarP(&file, "config", "c", "", "work it out from this configuration `FILE` instead of asking a director")
	downFlag(cmd, &down)
	cmd.Flags().StringVar(&proto, "proto", "tcp", "tcp or udp")
	cmd.Flags().StringVar(&src, "src", "", "the client's address and port (required)")
	cmd.Flags().StringVar(&dst, "dst", "", "the service's address and port (required)")
	return cmd
}

// answer works the question out from a file, or asks the director.
func answer(c *cobra.Command, q api.Question, socket, file string, down []string) (x api.Explanation, err error) {
	if file == "" {
		if len(down) > 0 {
			return x, usageError{errors.New("--down goes with -c: a running director knows which backends are down")}
		}
		return api.NewClient(socket).Explain(c.Context(), q)
	}
	d, err := offlineDirector(c, file, down)
	if err != nil {
		return x, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return d.Explain(q), nil
}

func printExplanation(w io.Writer, q api.Question, x api.Explanation) {
	flow := fmt.Sprintf("%s %s > %s", q.Proto, q.Src, q.Dst)
	switch {
	case x.Service == "":
		fmt.Fprintf(w, "%s: no service has this address, port and protocol: the packet is not the director's\n", flow)
		return
	case x.Backend == "":
		fmt.Fprintf(w, "%s: service %s (%s), but no backend of it takes new flows\n", flow, x.Service, x.Forward)
	default:
		at := netip.AddrPortFrom(x.Address, cmp.Or(x.Port, q.Dst.Port())) // with port: 0, each packet keeps its own
		fmt.Fprintf(w, "%s: service %s (%s), backend %s at %s\n", flow, x.Service, x.Forward, x.Backend, at)
		fmt.Fprintf(w, "hash %s selects slot %d of %d, which is %s's\n", x.Hash, x.Slot, x.Slots, x.Backend)
		if !x.Reached {
			fmt.Fprintf(w, "its next hop is not known: packets are dropped as no_neighbour\n")
		}
	}
	fmt.Fprintln(w)
	t := newTable(w, []string{"port", "weight", "slots"}, "backend", "address", "port", "weight", "state", "slots", "reason")
	for _, b := range x.Backends {
		state, reason := stateOf(b.Up, b.Reason, b.Unreached)
		t.AppendRow(table.Row{b.Name, b.Address, portName(b.Port), b.Weight, state, b.Slots, reason})
	}
	t.Render()
}
