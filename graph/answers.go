package graph

import (
	"context"
	"crypto/sha256"
	"sync"
	"sync/atomic"

	"github.com/99designs/gqlgen/graphql"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/hashicorp/golang-lru/v2/simplelru"

	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// What answers may take of the memory: 32 MiB of bodies and, at some 300 bytes an
// entry with its key, 5 MiB beside them; the requests that are known as much
// again. One body is a page of a hundred tasks of half a kilobyte at most.
const (
	maxAnswers     = 16 << 10
	maxAnswerBytes = 64 << 10 // of one body
	maxBytes       = 32 << 20 // of all
	knownRequests  = 16 << 10
)

// Answers keeps the finished bytes that reads were answered with, for as long as
// they are exactly what the reads would be answered again. One that was found by
// its id lasts until that is written to, any other until anything is; and either
// until time alone moves on a task that it shows. GraphQL and REST share one.
// Where other processes write to the store too, nothing is kept. It is safe for
// concurrent use, and a nil one keeps nothing.
type Answers struct {
	// Meter is told of GraphQL requests that are answered before they are decoded; it
	// may be nil.
	Meter Meter

	market *market.Market
	known  *lru.Cache[transport.Asked, known] // GraphQL requests that were answered before

	remembered, executed atomic.Int64 // reads

	mu    sync.Mutex
	kept  *simplelru.LRU[Question, *place]
	bytes int
}

// Question is the same for reads that are answered alike.
type Question struct {
	of     [sha256.Size]byte
	caller string // empty when it does not matter who asks, and for strangers
}

// Ask names a read by what was asked and, when that matters, by who asks.
func Ask(ctx context.Context, what string, personal bool) Question {
	return (known{of: sha256.Sum256([]byte(what)), personal: personal}).by(ctx)
}

// known is what has been found out about a GraphQL request: what it asks, and
// whether it matters who does.
type known struct {
	of       [sha256.Size]byte
	personal bool
	root     Root
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
	Body    []byte
	Link    string          // REST: the header of that name
	Balance *models.Credits // REST: the caller's, nil when Body was made without it
	Err     error           // what is answered in place of a body; never kept
	Keep    bool            // whether the same question may be answered with it

	response *graphql.Response // GraphQL: what Body was rendered from, or what there is in its place
}

// place is where an answer is kept or is going to be.
type place struct {
	epoch   market.Epoch // that it was begun in
	settled chan struct{}
	answer  *Answer       // nil when there is none to keep; written before settled is closed
	sight   *market.Sight // what the answer went by
	gone    bool          // whether there is none because the one who was to make it went away
}

// NewAnswers returns a store of answers about a market.
func NewAnswers(m *market.Market) (*Answers, error) {
	requests, err := lru.New[transport.Asked, known](knownRequests)
	if err != nil {
		return nil, err
	}
	a := &Answers{market: m, known: requests}
	a.kept, err = simplelru.NewLRU(maxAnswers, func(_ Question, p *place) {
		if p.answer != nil {
			a.bytes -= len(p.answer.Body)
		}
	})
	return a, err
}

// Get returns the answer to a question: the one that is kept, or the one that
// answer makes. Who asks the same meanwhile waits for it.
func (a *Answers) Get(ctx context.Context, q Question, answer func(context.Context) *Answer) *Answer {
	if kept := a.find(ctx, q); kept != nil {
		return kept
	}
	if a != nil {
		answer = a.counted(answer)
	}
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
			a.remembered.Add(1)
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

// find returns the answer that is kept to a question, nil when there is none that
// lasts.
func (a *Answers) find(ctx context.Context, q Question) *Answer {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	p, _ := a.kept.Get(q)
	if p == nil || p.answer == nil {
		a.mu.Unlock()
		return nil
	}
	a.mu.Unlock()
	if !a.market.Lasts(ctx, p.sight) {
		return nil
	}
	a.remembered.Add(1)
	return p.answer
}

// counted is what makes an answer, and counts it.
func (a *Answers) counted(answer func(context.Context) *Answer) func(context.Context) *Answer {
	return func(ctx context.Context) *Answer {
		a.executed.Add(1)
		return answer(ctx)
	}
}

// Counts returns how many reads were answered from memory so far, those that waited
// for another's answer among them, and how many were executed.
func (a *Answers) Counts() (remembered, executed int64) {
	return a.remembered.Load(), a.executed.Load()
}

// claim returns the place of an answer that is begun in an epoch, and whether it
// is the caller's to fill.
func (a *Answers) claim(epoch market.Epoch, q Question) (p *place, mine bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p, taken := a.kept.Get(q); taken && p.epoch == epoch {
		return p, false
	}
	a.kept.Remove(q)
	p = &place{epoch: epoch, settled: make(chan struct{})}
	a.kept.Add(q, p)
	return p, true
}

// fill makes the answer of a place and lets those have it that wait for it.
func (a *Answers) fill(ctx context.Context, q Question, p *place, answer func(context.Context) *Answer) *Answer {
	var made *Answer
	looking, sight := a.market.Look(ctx, p.epoch)
	defer func() { a.settle(q, p, made, sight, ctx.Err() != nil) }() // after a panic too
	made = answer(looking)
	return made
}

// settle keeps what was made of an answer, which is nothing after a panic.
func (a *Answers) settle(q Question, p *place, made *Answer, sight *market.Sight, gone bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer close(p.settled)
	present, _ := a.kept.Peek(q)
	if made == nil || !made.Keep || len(made.Body) > maxAnswerBytes {
		p.gone = gone || made == nil
		if present == p {
			a.kept.Remove(q)
		}
		return
	}
	p.answer, p.sight = made, sight
	if present != p {
		return
	}
	a.bytes += len(made.Body)
	for a.bytes > maxBytes {
		a.kept.RemoveOldest()
	}
}
