// Package report draws results of the performance lab.
package report

import (
	"io"

	"xlvs/perf"
)

// Write writes res as one HTML page that needs nothing else: no network, no script.
func Write(w io.Writer, res *perf.Result) error {
	return page.Execute(w, view(res))
}
