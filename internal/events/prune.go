package events

import (
	"context"
	"errors"
	"fmt"

	"gorm.io/gorm"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// pruneBatchSize is how many events one transaction takes away. It is a guess: however
// long a batch holds the writer, [database.RunThrottled] rests in proportion.
const pruneBatchSize = 500

// PruneBounds are what events must be before to be taken away, all of them.
type PruneBounds struct {
	Time models.Time // when it was made
	ID   int64       // the first that something else still goes by
	Seq  int64       // the first cursor that is not counted yet
}

// Prune takes the events within the bounds away, from the beginning of the log to
// the first that is not, and returns how many. Their cursors are not given again,
// and who goes on from before them gets CURSOR_EXPIRED. Several processes may prune
// at once: one does.
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

// oldestEvent returns the first event of the log, an empty one when there is none.
func (l *Log) oldestEvent(ctx context.Context) (models.Event, error) {
	var oldest []models.Event
	err := l.db.Read(ctx).Where("seq > 0").Order("seq").Limit(1).Find(&oldest).Error
	if err != nil || len(oldest) == 0 {
		return models.Event{}, err
	}
	return oldest[0], nil
}

// deleteBatch moves the horizon on over a batch of events and takes them away.
func deleteBatch(tx *database.Tx, bounds PruneBounds) (int, error) {
	var horizon models.EventHorizon
	err := tx.ForUpdateSkipLocked().Take(&horizon, "one = 1").Error
	if errors.Is(err, gorm.ErrRecordNotFound) { // another process is at it
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
	gone := tx.Where("seq <= ?", horizon.Seq).Delete(&models.Event{})
	if gone.Error == nil && gone.RowsAffected != int64(n) {
		return 0, fmt.Errorf("%d events went, not %d", gone.RowsAffected, n)
	}
	return n, gone.Error
}
