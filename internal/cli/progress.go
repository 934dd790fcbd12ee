package cli

import (
	"io"
	"time"

	"github.com/schollz/progressbar/v3"

	"agentmarket.space/server/internal/app"
)

// unknownTotal is the total of a progress whose end is not known in advance.
const unknownTotal = -1

// redrawInterval is the shortest time between two writes to the terminal.
const redrawInterval = 100 * time.Millisecond

// progress is a progress bar on a terminal. It is erased when it finishes. If the
// output is not a terminal, it writes nothing.
type progress struct{ bar *progressbar.ProgressBar }

// startProgress shows a bar with a description of the work and its total.
func startProgress(w io.Writer, description string, total int64) *progress {
	return &progress{progressbar.NewOptions64(total, progressbar.OptionSetWriter(w), progressbar.OptionSetVisibility(app.IsTerminal(w)),
		progressbar.OptionSetDescription(description), progressbar.OptionSetWidth(30), progressbar.OptionThrottle(redrawInterval), progressbar.OptionShowCount(),
		progressbar.OptionSpinnerType(14), progressbar.OptionSetRenderBlankState(true), progressbar.OptionClearOnFinish())}
}

func (p *progress) set(done int64) { _ = p.bar.Set64(done) } // a display error is not an error of the command

// finish erases the bar.
func (p *progress) finish() { _ = p.bar.Finish() } // as in set

// stepProgress shows one bar after another, one for each named step.
type stepProgress struct {
	out     io.Writer
	name    string
	current *progress
}

// update shows the progress of the named step, and starts its bar if it is a new
// step.
func (s *stepProgress) update(name string, done, total int64) {
	if s.current == nil || s.name != name {
		s.finish()
		s.name, s.current = name, startProgress(s.out, name, total)
	}
	s.current.set(done)
	if done >= total {
		s.finish()
	}
}

// finish erases the current bar.
func (s *stepProgress) finish() {
	if s.current != nil {
		s.current.finish()
	}
	s.current = nil
}
