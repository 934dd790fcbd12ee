package cli

import (
	"io"
	"time"

	"github.com/schollz/progressbar/v3"

	"agentmarket.space/server/internal/app"
)

// unknownTotal is how much there is to do where nobody knows beforehand.
const unknownTotal = -1

// redrawInterval is how often a terminal is written to at most.
const redrawInterval = 100 * time.Millisecond

// progress shows at a terminal that something goes on, and how far it has got. It
// leaves no trace there; elsewhere it writes nothing.
type progress struct{ bar *progressbar.ProgressBar }

// startProgress shows what is being done; of is how much there is to do.
func startProgress(to io.Writer, doing string, of int64) *progress {
	return &progress{progressbar.NewOptions64(of, progressbar.OptionSetWriter(to), progressbar.OptionSetVisibility(app.IsTerminal(to)),
		progressbar.OptionSetDescription(doing), progressbar.OptionSetWidth(30), progressbar.OptionThrottle(redrawInterval), progressbar.OptionShowCount(),
		progressbar.OptionSpinnerType(14), progressbar.OptionSetRenderBlankState(true), progressbar.OptionClearOnFinish())}
}

// set shows that so much is done.
func (p *progress) set(done int64) { _ = p.bar.Set64(done) } // it is only shown

// finish takes it away.
func (p *progress) finish() { _ = p.bar.Finish() } // it was only shown

// stepProgress is progress through one thing after another.
type stepProgress struct {
	out     io.Writer
	name    string
	current *progress
}

// update shows how far the thing of a name has got.
func (s *stepProgress) update(name string, done, of int64) {
	if s.current == nil || s.name != name {
		s.finish()
		s.name, s.current = name, startProgress(s.out, name, of)
	}
	s.current.set(done)
	if done >= of {
		s.finish()
	}
}

// finish takes away what is shown.
func (s *stepProgress) finish() {
	if s.current != nil {
		s.current.finish()
	}
	s.current = nil
}
