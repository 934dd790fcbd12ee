package client

import (
	"context"

	"agentmarket.space/server/internal/client/api"
)

// openTasks reads the open tasks that require one of a worker's capabilities, oldest first,
// page by page. Each task is returned once. It leaves out tasks for which skip returns
// true.
type openTasks struct {
	remote *Remote
	skip   func(*api.TaskFields) bool
	lists  []*openTaskList
}

// openTaskList is the list of one capability. Lists are sorted by id: the id of a later
// task is greater.
type openTaskList struct {
	capability string
	unread     []api.TaskFields // the rest of the current page
	after      *string          // the cursor of the next page, nil for the first
	atEnd      bool             // the current page is the last
}

func newOpenTasks(remote *Remote, capabilities []string, skip func(*api.TaskFields) bool) *openTasks {
	tasks := &openTasks{remote: remote, skip: skip}
	for _, capability := range capabilities {
		tasks.lists = append(tasks.lists, &openTaskList{capability: capability})
	}
	return tasks
}

// next returns the next task, or nil if there are no more.
func (o *openTasks) next(ctx context.Context) (*api.TaskFields, error) {
	var oldest *api.TaskFields
	for _, list := range o.lists {
		first, err := o.first(ctx, list)
		if err != nil {
			return nil, err
		}
		if first != nil && (oldest == nil || first.Id < oldest.Id) {
			oldest = first
		}
	}
	if oldest == nil {
		return nil, nil //nolint:nilnil // no more tasks
	}
	for _, list := range o.lists { // a task can be in several lists
		if len(list.unread) > 0 && list.unread[0].Id == oldest.Id {
			list.unread = list.unread[1:]
		}
	}
	return oldest, nil
}

// first returns the first unread task of a list that is not skipped, or nil if there is
// none. It reads as many pages as it takes.
func (o *openTasks) first(ctx context.Context, list *openTaskList) (*api.TaskFields, error) {
	for {
		for ; len(list.unread) > 0; list.unread = list.unread[1:] {
			if first := &list.unread[0]; !o.skip(first) {
				return first, nil
			}
		}
		if list.atEnd {
			return nil, nil //nolint:nilnil // no more tasks
		}
		const pageSize = 100
		page, err := api.OpenTasks(ctx, o.remote.client(), pageSize, list.after, list.capability)
		if err != nil {
			return nil, o.remote.describeError(err)
		}
		list.unread, list.after, list.atEnd = page.Tasks.Nodes, page.Tasks.PageInfo.EndCursor, !page.Tasks.PageInfo.HasNextPage
	}
}
