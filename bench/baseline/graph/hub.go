package graph

import (
	"context"
	"strconv"
	"sync"
)

// Hub hands every posted task to every subscriber. It drops nothing: a
// subscriber that does not read holds up the others, but never a poster.
type Hub struct {
	posted chan *Task

	mu          sync.RWMutex
	subscribers map[chan *TaskPostedEvent]<-chan struct{}
}

// NewHub starts a hub that lives as long as the process.
func NewHub() *Hub {
	h := &Hub{posted: make(chan *Task, 1024), subscribers: map[chan *TaskPostedEvent]<-chan struct{}{}}
	go func() {
		for cursor := 1; ; cursor++ {
			h.broadcast(&TaskPostedEvent{Cursor: strconv.Itoa(cursor), Task: <-h.posted})
		}
	}()
	return h
}

// Publish queues a task for the subscribers.
func (h *Hub) Publish(task *Task) { h.posted <- task }

// Subscribe returns the tasks posted from now on, until ctx ends.
func (h *Hub) Subscribe(ctx context.Context) <-chan *TaskPostedEvent {
	events := make(chan *TaskPostedEvent, 16)
	h.mu.Lock()
	h.subscribers[events] = ctx.Done()
	h.mu.Unlock()
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		delete(h.subscribers, events)
		h.mu.Unlock()
	})
	return events
}

func (h *Hub) broadcast(event *TaskPostedEvent) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for events, gone := range h.subscribers {
		select {
		case events <- event:
		case <-gone:
		}
	}
}
