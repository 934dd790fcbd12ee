package graph

import (
	"context"
	"crypto/sha256"
	"sync"

	"github.com/99designs/gqlgen/graphql"
	lru "github.com/hashicorp/golang-lru/v2"

	"agentmarket.space/server/auth"
	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/market"
)

// What answers may take of the memory: 32 MiB of bodies and, at some 250 bytes an
// entry with its key, 4 MiB beside them; the requests that are known as much
// again. One body is a page of a hundred tasks of half a kilobyte at most.
const (
	maxAnswers     = 16 << 10
	maxAnswerBytes = 64 << 10 // of one body
	maxBytes       = 32 << 20 // of all
	knownRequests  = 16 << 10
)

// Answers keeps the finished bytes that reads were answered with, for as long as
// they are exactly what the reads would be answered again: until anything is
// written, or time alone moves a task on. GraphQL and REST share one. Where
// other processes write to the store too, nothing is kept. It is safe for
// concurrent use, and a nil one keeps nothing.
type Answers struct {
	market *market.Market
	known  *lru.Cache[transport.Asked, known] // GraphQL requests that were answered before

	mu    sync.Mutex
	epoch market.Epoch // that everything kept is of
	kept  map[Question]*place
	bytes int
}

// Question is the same for reads that are answered alike.
type Question struct {
	of     [sha256.Size]byte
	caller string // empty when it does not matter who asks, and for strangers
}

// Ask names a read by what was asked and by who asks.
func Ask(ctx context.Context, what string) Question {
	return (known{of: sha256.Sum256([]byte(what)), personal: true}).by(ctx)
}

// known is what has been found out about a GraphQL request: what it asks, and
// whether it matters who does.
type known struct {
	of       [sha256.Size]byte
	personal bool
}

func (k known) by(ctx context.Context) Question {
	q := Question{of: k.of}
	if k.personal {
		actor, _ := auth.FromContext(ctx)
		q.caller = actor.AgentID
	}
	return q
}

// Answer is a finished answer.
type Answer struct {
	Body []byte
	Link string // REST: the header of that name
	Err  error  // what is answered in place of a body; never kept
	Keep bool   // whether the same question may be answered with it

	response *graphql.Response // GraphQL: what Body was rendered from, or what there is in its place
}

// place is where an answer is kept or is going to be.
type place struct {
	settled chan struct{}
	answer  *Answer // nil when there is none to keep; written before settled is closed
	gone    bool    // whether that is because the one who was to make it went away
}

// NewAnswers returns a store of answers about a market.
func NewAnswers(m *market.Market) (*Answers, error) {
	requests, err := lru.New[transport.Asked, known](knownRequests)
	return &Answers{market: m, known: requests, kept: map[Question]*place{}}, err
}

// Get returns the answer to a question: the one that is kept, or the one that
// answer makes. Who asks the same meanwhile waits for it.
func (a *Answers) Get(ctx context.Context, q Question, answer func(context.Context) *Answer) *Answer {
	epoch, ok := a.now(ctx) // before anything is read
	if !ok {
		return answer(ctx)
	}
	for {
		p, mine := a.claim(epoch, q)
		if mine {
			return a.fill(ctx, q, p, answer)
		}
		select {
		case <-p.settled:
		case <-ctx.Done():
			return answer(ctx) // which says so
		}
		if p.answer != nil {
			return p.answer
		}
		if !p.gone { // it is a refusal, and this caller's may read otherwise
			return answer(ctx)
		}
	}
}

// now returns the present epoch when there is one to keep answers of.
func (a *Answers) now(ctx context.Context) (epoch market.Epoch, ok bool) {
	if a == nil {
		return epoch, false
	}
	epoch, err := a.market.Epoch(ctx)
	return epoch, err == nil && epoch.Known()
}

// claim returns the place of an answer, and whether it is the caller's to fill.
// What was kept of other epochs is dropped.
func (a *Answers) claim(epoch market.Epoch, q Question) (p *place, mine bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.epoch != epoch {
		clear(a.kept)
		a.epoch, a.bytes = epoch, 0
	}
	if p, taken := a.kept[q]; taken {
		return p, false
	}
	if len(a.kept) == maxAnswers {
		a.evict()
	}
	p = &place{settled: make(chan struct{})}
	a.kept[q] = p
	return p, true
}

// fill makes the answer of a place and lets those have it that wait for it.
func (a *Answers) fill(ctx context.Context, q Question, p *place, answer func(context.Context) *Answer) *Answer {
	var made *Answer
	defer func() { a.settle(q, p, made, ctx.Err() != nil) }() // after a panic too
	made = answer(ctx)
	return made
}

// settle keeps what was made of an answer, which is nothing after a panic.
func (a *Answers) settle(q Question, p *place, made *Answer, gone bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer close(p.settled)
	if made == nil || !made.Keep || len(made.Body) > maxAnswerBytes {
		p.gone = gone || made == nil
		if a.kept[q] == p {
			delete(a.kept, q)
		}
		return
	}
	for a.kept[q] == p && a.bytes+len(made.Body) > maxBytes {
		a.evict() // perhaps this very place, of which no byte is counted yet
	}
	p.answer = made
	if a.kept[q] == p {
		a.bytes += len(made.Body)
	}
}

// evict makes room by dropping any one answer: which is best kept nobody knows,
// and the next write drops them all.
func (a *Answers) evict() {
	for q, p := range a.kept {
		if p.answer != nil {
			a.bytes -= len(p.answer.Body)
		}
		delete(a.kept, q)
		break
	}
}

// find returns the answer that is kept to a question, nil when there is none.
func (a *Answers) find(epoch market.Epoch, q Question) *Answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.kept[q]; p != nil && a.epoch == epoch {
		return p.answer
	}
	return nil
}
