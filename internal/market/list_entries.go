package market

import (
	"context"
	"slices"
	"strconv"

	"gorm.io/gorm"

	"agentmarket.space/server/models"
)

// EntryQuery filters the transfers of an agent. Kinds and TaskID are optional.
type EntryQuery struct {
	AgentID string
	Kinds   []models.TransferKind
	TaskID  string
}

// EntryCursor returns a transfer's cursor in the list.
func EntryCursor(t *models.Transfer) string { return strconv.FormatInt(t.Seq, 10) }

// entrySide is one side of the transfers of an agent's available account.
type entrySide struct {
	column string
	kinds  []models.TransferKind // of all transfers on this side
}

func entrySides() []entrySide {
	return []entrySide{
		{"debit_account", []models.TransferKind{models.Hold, models.Hire}},
		{"credit_account", []models.TransferKind{models.Grant, models.Refund, models.Payout}},
	}
}

// ListEntries returns a page of the transfers that changed the agent's available balance,
// newest first. With a filter by kind a page can be short although others follow it.
// INVALID_INPUT for an invalid cursor or task id.
func (m *Market) ListEntries(ctx context.Context, q EntryQuery, page Page) (ListResult[models.Transfer], error) {
	if q.TaskID != "" {
		if err := checkText("taskId", q.TaskID, 0, maxTitle); err != nil {
			return ListResult[models.Transfer]{}, err
		}
	}
	after, err := page.afterSeq()
	if err != nil {
		return ListResult[models.Transfer]{}, err
	}
	return readBounded(ctx, m, len(q.Kinds) > 0, func(ctx context.Context) (ListResult[models.Transfer], error) {
		return m.listEntries(ctx, q, page, after)
	})
}

func (m *Market) listEntries(ctx context.Context, q EntryQuery, page Page, after *int64) (ListResult[models.Transfer], error) {
	account := models.AvailableAccount(q.AgentID)
	var queries []*gorm.DB
	var end int64 // of the walks, 0 if they read all rows
	for _, side := range entrySides() {
		wanted := q.kindsOf(side)
		if len(wanted) == 0 {
			continue
		}
		query := m.deps.DB.Read(ctx).Table("transfers").Where(side.column+" = ?", account)
		if after != nil {
			query = query.Where("seq < ?", *after)
		}
		switch {
		case q.TaskID != "":
			query = query.Where("id IN ? AND kind IN ?", q.transferIDs(), wanted)
		case len(wanted) < len(side.kinds):
			var ends []int64
			walk := query.Session(&gorm.Session{}).Select("seq").Order("seq DESC").Offset(m.bounds.walked - 1).Limit(1)
			if err := walk.Scan(&ends).Error; err != nil {
				return ListResult[models.Transfer]{}, err
			}
			if len(ends) > 0 {
				end = max(end, ends[0]) // the nearer end: the list is in descending order
			}
			query = query.Where("kind IN ?", wanted)
		}
		queries = append(queries, query)
	}
	var transfers []models.Transfer
	if len(queries) == 0 {
		return newListResult(transfers, page), nil
	}
	for i := range queries {
		queries[i] = queries[i].Where("seq >= ?", end).Order("seq DESC").Limit(page.First + 1)
	}
	err := m.deps.DB.Read(ctx).Table("(?) AS transfers", unionAll(m.deps.DB.Read(ctx), queries)).
		Order("seq DESC").Limit(page.First + 1).Find(&transfers).Error
	result := newListResult(transfers, page)
	if end > 0 && !result.HasMore {
		result.HasMore, result.End = true, strconv.FormatInt(end, 10)
	}
	return result, err
}

// kindsOf returns the kinds of a side that the query asks for.
func (q EntryQuery) kindsOf(side entrySide) []models.TransferKind {
	if len(q.Kinds) == 0 {
		return side.kinds
	}
	return slices.DeleteFunc(slices.Clone(side.kinds), func(kind models.TransferKind) bool { return !slices.Contains(q.Kinds, kind) })
}

// transferIDs returns the ids of all transfers of a task that can change an available
// balance.
func (q EntryQuery) transferIDs() []string {
	return []string{"hold:" + q.TaskID, "hire:" + q.TaskID, "refund:" + q.TaskID, "payout:" + q.TaskID}
}

// afterSeq returns the number of the transfer that the page follows, nil for the first page.
func (p Page) afterSeq() (*int64, error) {
	if p.After == "" {
		return nil, nil //nolint:nilnil // the first page follows nothing
	}
	seq, err := strconv.ParseInt(p.After, 10, 64)
	if err != nil || seq < 0 || strconv.FormatInt(seq, 10) != p.After {
		return nil, models.FieldErrorf("after", "must be a cursor of the same list")
	}
	return &seq, nil
}
