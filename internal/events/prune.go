package events

import (
	"context"
	"errors"
	"fmt"

	"gorm.io/gorm"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// pruneBatchSize is the maximum number of events deleted in one transaction. It is
// not tuned: [database.RunThrottled] rests in proportion to the duration of a batch.
const pruneBatchSize = 500

// PruneBounds limit which events are deleted. An event must be below all of them.
type PruneBounds struct {
	Time models.Time // creation time
	ID   int64       // first event that is still referenced
	Seq  int64       // first cursor that the ledger totals do not include
}

// Prune deletes events from the beginning of the log up to the first one outside the
// bounds, and returns their number. Their cursors are not reused. A subscriber that
// resumes from a cursor before them gets CURSOR_EXPIRED. If several processes prune
// at the same time, only one deletes.
func (l *Log) Prune(ctx context.Context, bounds PruneBounds) (pruned int, err error) {
	err = database.RunThrottled(ctx, func() (bool, error) {
		oldest, err := l.oldestEvent(ctx)
		if err != nil || !bounds.contains(&oldest) {
			return false, err
		}
		n := 0
		err = l.db.Write(ctx, func(tx *database.Tx) (err error) {
			n, err = deleteBatch(tx, bounds)
			return err
		})
		pruned += n
		return n == pruneBatchSize, err
	})
	if err != nil {
		return pruned, fmt.Errorf("prune events: %w", err)
	}
	return pruned, nil
}

// contains reports whether an event is within the bounds.
func (b PruneBounds) contains(e *models.Event) bool {
	return e.Seq > 0 && e.CreatedAt < b.Time && e.ID < b.ID && e.Seq < b.Seq
}

// oldestEvent returns the first event of the log, or a zero Event if the log is
// empty.
func (l *Log) oldestEvent(ctx context.Context) (models.Event, error) {
	var oldest []models.Event
	err := l.db.Read(ctx).Where("seq > 0").Order("seq").Limit(1).Find(&oldest).Error
	if err != nil || len(oldest) == 0 {
		return models.Event{}, err
	}
	return oldest[0], nil
}

// deleteBatch moves the horizon forward over a batch of events and deletes them. It
// returns their number.
func deleteBatch(tx *database.Tx, bounds PruneBounds) (int, error) {
	var horizon models.EventLowWatermark
	err := tx.ForUpdateSkipLocked().Take(&horizon, "one = 1").Error
	if errors.Is(err, gorm.ErrRecordNotFound) { // another process is pruning
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var events []models.Event
	err = tx.Select("seq", "id", "created_at").Where("seq > ?", horizon.Seq).Order("seq").Limit(pruneBatchSize).Find(&events).Error
	if err != nil {
		return 0, err
	}
	n := 0
	for ; n < len(events) && bounds.contains(&events[n]); n++ {
		horizon.Seq, horizon.CreatedAt = events[n].Seq, max(horizon.CreatedAt, events[n].CreatedAt)
	}
	if n == 0 {
		return 0, nil
	}
	if err := tx.Model(&horizon).Select("seq", "created_at").Updates(&horizon).Error; err != nil {
		return 0, err
	}
	deleted := tx.Where("seq <= ?", horizon.Seq).Delete(&models.Event{})
	if deleted.Error == nil && deleted.RowsAffected != int64(n) {
		return 0, fmt.Errorf("deleted %d events, want %d", deleted.RowsAffected, n)
	}
	return n, deleted.Error
}
