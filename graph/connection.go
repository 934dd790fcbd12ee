package graph

import (
	"context"

	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// defaultPageSize is the page size without the argument first.
const defaultPageSize = 20

// pageFrom returns the page for the arguments of a list.
func pageFrom(first *int, after *string) market.Page {
	p := market.Page{First: defaultPageSize}
	if first != nil {
		p.First = *first
	}
	if after != nil {
		p.After = *after
	}
	return p
}

// pageInfo returns the PageInfo of a page.
func pageInfo[T any](result market.ListResult[T], p market.Page, cursor func(*T) string) *generated.PageInfo {
	info := &generated.PageInfo{HasNextPage: result.HasMore, HasPreviousPage: p.After != ""}
	if n := len(result.Items); n > 0 {
		first, last := cursor(&result.Items[0]), cursor(&result.Items[n-1])
		info.StartCursor, info.EndCursor = &first, &last
	}
	if result.End != "" {
		info.EndCursor = &result.End
	}
	return info
}

func (r *Resolver) agentConnection(ctx context.Context, q market.AgentQuery, p market.Page) (*generated.AgentConnection, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	result, err := r.Market.ListAgents(ctx, q, p)
	if err != nil {
		return nil, err
	}
	edges := make([]*generated.AgentEdge, len(result.Items))
	for i := range result.Items {
		edges[i] = &generated.AgentEdge{Cursor: q.Cursor(&result.Items[i]), Node: &result.Items[i]}
	}
	return &generated.AgentConnection{Edges: edges, Nodes: pointers(result.Items), PageInfo: pageInfo(result, p, q.Cursor), Count: market.NewLazyCount(r.Market.CountAgents, q)}, nil
}

func (r *Resolver) taskConnection(ctx context.Context, q market.TaskQuery, p market.Page) (*generated.TaskConnection, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	result, err := r.Market.ListTasks(ctx, q, p)
	if err != nil {
		return nil, err
	}
	loadersFrom(ctx).prefetchTaskAgents(result.Items)
	edges := make([]*generated.TaskEdge, len(result.Items))
	for i := range result.Items {
		edges[i] = &generated.TaskEdge{Cursor: q.Cursor(&result.Items[i]), Node: &result.Items[i]}
	}
	return &generated.TaskConnection{Edges: edges, Nodes: pointers(result.Items), PageInfo: pageInfo(result, p, q.Cursor), Count: market.NewLazyCount(r.Market.CountTasks, q)}, nil
}

func (r *Resolver) entryConnection(ctx context.Context, q market.EntryQuery, p market.Page) (*generated.LedgerEntryConnection, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	result, err := r.Market.ListEntries(ctx, q, p)
	if err != nil {
		return nil, err
	}
	out := &generated.LedgerEntryConnection{
		Edges: make([]*generated.LedgerEntryEdge, len(result.Items)), Nodes: make([]*generated.LedgerEntry, len(result.Items)),
		PageInfo: pageInfo(result, p, market.EntryCursor),
	}
	tasks := &loadersFrom(ctx).tasks
	for i := range result.Items {
		tasks.prefetch(result.Items[i].TaskID)
		out.Nodes[i] = ledgerEntry(q.AgentID, &result.Items[i])
		out.Edges[i] = &generated.LedgerEntryEdge{Cursor: market.EntryCursor(&result.Items[i]), Node: out.Nodes[i]}
	}
	return out, nil
}

func (r *Resolver) deliveryConnection(ctx context.Context, agentID string, status []models.DeliveryStatus, p market.Page) (*generated.WebhookDeliveryConnection, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	if p.After != "" {
		var ok bool
		if p.After, ok = models.ParseUUID(p.After); !ok {
			return nil, models.FieldErrorf("after", "must be a cursor of the same list")
		}
	}
	rows, err := r.Webhooks.Deliveries(ctx, agentID, status, p.First+1, p.After)
	if err != nil {
		return nil, err
	}
	result := market.ListResult[models.Delivery]{Items: rows[:min(len(rows), p.First)], HasMore: len(rows) > p.First}
	cursor := func(d *models.Delivery) string { return d.ID }
	edges := make([]*generated.WebhookDeliveryEdge, len(result.Items))
	l := loadersFrom(ctx)
	for i := range result.Items {
		l.tasks.prefetch(&result.Items[i].TaskID)
		l.attempts.prefetch(&result.Items[i].ID)
		edges[i] = &generated.WebhookDeliveryEdge{Cursor: cursor(&result.Items[i]), Node: &result.Items[i]}
	}
	return &generated.WebhookDeliveryConnection{Edges: edges, Nodes: pointers(result.Items), PageInfo: pageInfo(result, p, cursor)}, nil
}
