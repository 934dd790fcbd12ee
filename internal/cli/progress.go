package cli

import (
	"io"
	"time"

	"github.com/schollz/progressbar/v3"

	"agentmarket.space/server/internal/app"
)

// unknown is how much there is to do where nobody knows beforehand.
const unknown = -1

// redrawn is how often a terminal is written to at most.
const redrawn = 100 * time.Millisecond

// progress shows at a terminal that something goes on, and how far it has got. It
// leaves no trace there; elsewhere it writes nothing.
type progress struct{ bar *progressbar.ProgressBar }

// begin shows what is being done; of is how much there is to do.
func begin(to io.Writer, doing string, of int64) *progress {
	return &progress{progressbar.NewOptions64(of, progressbar.OptionSetWriter(to), progressbar.OptionSetVisibility(app.Terminal(to)),
		progressbar.OptionSetDescription(doing), progressbar.OptionSetWidth(30), progressbar.OptionThrottle(redrawn), progressbar.OptionShowCount(),
		progressbar.OptionSpinnerType(14), progressbar.OptionSetRenderBlankState(true), progressbar.OptionClearOnFinish())}
}

// at shows that so much is done.
func (p *progress) at(done int64) { _ = p.bar.Set64(done) } // it is only shown

// end takes it away.
func (p *progress) end() { _ = p.bar.Finish() } // it was only shown

// steps is progress through one thing after another.
type steps struct {
	to   io.Writer
	name string
	now  *progress
}

// at shows how far the thing of a name has got.
func (s *steps) at(name string, done, of int64) {
	if s.now == nil || s.name != name {
		s.end()
		s.name, s.now = name, begin(s.to, name, of)
	}
	s.now.at(done)
	if done >= of {
		s.end()
	}
}

// end takes away what is shown.
func (s *steps) end() {
	if s.now != nil {
		s.now.end()
	}
	s.now = nil
}
