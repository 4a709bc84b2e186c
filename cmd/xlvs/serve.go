package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
)

func serveCmd() *cobra.Command {
	var listen, name string
	cmd := &cobra.Command{
		Use: "serve --listen ADDR [--name NAME]", Short: "A small web server to try a director with", Args: noArgs,
		Long: "Answer every HTTP request with one line that names this server, until SIGTERM or SIGINT: a real server for the\n" +
			"tutorial, on a machine that has no other.",
		RunE: func(c *cobra.Command, _ []string) error {
			if _, _, err := net.SplitHostPort(listen); err != nil {
				return usageError{fmt.Errorf("--listen %q is no address with a port, like 0.0.0.0:80", listen)}
			}
			return serveHTTP(c.Context(), listen, name)
		},
	}
	host, _ := os.Hostname() // an empty name is as good
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:8080", "address and port")
	cmd.Flags().StringVar(&name, "name", host, "what the server calls itself")
	return cmd
}

func serveHTTP(ctx context.Context, listen, name string) error {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Backend", name)
		fmt.Fprintf(w, "%s answers %s\n", name, r.RemoteAddr)
	})}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
