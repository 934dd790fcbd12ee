package webhooks

import (
	"cmp"
	"context"
	"fmt"
	"math"

	"gorm.io/gorm"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// prunePageSize is how many deliveries are looked at, and taken away, at once.
const prunePageSize = 200

// Prune takes the deliveries away that are older than they are kept, with their
// attempts. Those that wait for an attempt are kept until it has been made. Several
// processes may prune at once.
func (w *Webhooks) Prune(ctx context.Context) error {
	if w.retention == 0 {
		return nil
	}
	before, after := w.timestamp().Add(-w.retention), ""
	err := database.RunThrottled(ctx, func() (bool, error) {
		var page []models.Delivery
		err := w.db.Read(ctx).Select("id", "status", "created_at").Where("id > ?", after).Order("id").Limit(prunePageSize).Find(&page).Error
		if err != nil {
			return false, err
		}
		var old []string
		for i := range page {
			after = page[i].ID
			if page[i].Status != models.DeliveryPending && page[i].CreatedAt < before {
				old = append(old, page[i].ID)
			}
		}
		if len(old) > 0 {
			err = w.db.Write(ctx, func(tx *database.Tx) error { return deleteDeliveries(tx, old) })
		}
		// Ids are in the order of making: what follows a young one is young.
		return len(page) == prunePageSize && page[len(page)-1].CreatedAt < before, err
	})
	if err != nil {
		return fmt.Errorf("prune deliveries: %w", err)
	}
	return nil
}

// deleteDeliveries takes deliveries away, but for those that somebody is at.
func deleteDeliveries(tx *database.Tx, ids []string) error {
	var ended []string
	err := tx.ForUpdateSkipLocked().Model(&models.Delivery{}).Where("id IN ? AND status <> ?", ids, models.DeliveryPending).Pluck("id", &ended).Error
	if err != nil || len(ended) == 0 {
		return err
	}
	if err := tx.Delete(&models.Attempt{}, "delivery_id IN ?", ended).Error; err != nil {
		return err
	}
	return tx.Delete(&models.Delivery{}, "id IN ?", ended).Error
}

// OldestNeeded returns the id of the first event that a delivery names, or one still to be
// made does: that event is to be kept, and what follows it.
func (w *Webhooks) OldestNeeded(ctx context.Context) (eventID int64, err error) {
	// The jobs come first: what one of them does meanwhile is seen in the deliveries.
	waiting, err := scanMinID(w.db.Read(ctx).Table("river_job").Select("MIN(CAST(args ->> 'event_id' AS BIGINT))").
		Where("queue = ? AND state IN ?", matchQueue, []string{"available", "pending", "retryable", "running", "scheduled"}))
	if err != nil {
		return 0, fmt.Errorf("look for the first event to be matched: %w", err)
	}
	made, err := scanMinID(w.db.Read(ctx).Model(&models.Delivery{}).Select("MIN(event_id)"))
	if err != nil {
		return 0, fmt.Errorf("look for the first event with a delivery: %w", err)
	}
	return min(waiting, made), nil
}

// scanMinID reads a number that is there or not.
func scanMinID(query *gorm.DB) (int64, error) {
	var found *int64
	err := query.Scan(&found).Error
	return *cmp.Or(found, new(int64(math.MaxInt64))), err
}
