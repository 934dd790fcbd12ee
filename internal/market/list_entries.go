package market

import (
	"context"
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

// ListEntries returns a page of the transfers that changed the agent's available balance,
// newest first. INVALID_INPUT for an invalid cursor.
func (m *Market) ListEntries(ctx context.Context, q EntryQuery, page Page) (ListResult[models.Transfer], error) {
	account := models.AvailableAccount(q.AgentID)
	var queries []*gorm.DB
	for _, side := range []string{"debit_account", "credit_account"} {
		query, err := q.where(m.deps.DB.Read(ctx).Table("transfers").Where(side+" = ?", account), page)
		if err != nil {
			return ListResult[models.Transfer]{}, err
		}
		queries = append(queries, query)
	}
	var transfers []models.Transfer
	err := m.deps.DB.Read(ctx).Table("(?) AS transfers", unionAll(m.deps.DB.Read(ctx), queries)).
		Order("seq DESC").Limit(page.First + 1).Find(&transfers).Error
	return newListResult(transfers, page), err
}

// where adds the filters and the page to a query.
func (q EntryQuery) where(query *gorm.DB, page Page) (*gorm.DB, error) {
	if len(q.Kinds) > 0 {
		query = query.Where("kind IN ?", q.Kinds)
	}
	if q.TaskID != "" {
		if err := checkText("taskId", q.TaskID, 0, maxTitle); err != nil {
			return nil, err
		}
		query = query.Where("task_id = ?", q.TaskID)
	}
	if page.After != "" {
		seq, err := strconv.ParseInt(page.After, 10, 64)
		if err != nil || seq < 0 || strconv.FormatInt(seq, 10) != page.After {
			return nil, models.FieldErrorf("after", "must be a cursor of the same list")
		}
		query = query.Where("seq < ?", seq)
	}
	return query.Order("seq DESC").Limit(page.First + 1), nil
}
