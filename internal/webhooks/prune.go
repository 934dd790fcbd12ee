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

// prunePageSize is the number of deliveries that are read and deleted at once.
const prunePageSize = 200

// Prune deletes the replaced secrets that sign no more, and deliveries older than the
// retention, with their attempts. Pending deliveries are kept until their last attempt.
// Several processes may call Prune at the same time.
func (w *Webhooks) Prune(ctx context.Context) error {
	if err := w.pruneSecrets(ctx); err != nil || w.retention == 0 {
		return err
	}
	before, after := w.timestamp().Add(-w.retention), ""
	err := database.RunThrottled(ctx, func() (bool, error) {
		var page []models.Delivery
		err := w.db.Read(ctx).Select("id", "status", "created_at").Where("id > ?", after).Order("id").Limit(prunePageSize).Find(&page).Error
		if err != nil {
			return false, err
		}
		var expired []string
		for i := range page {
			after = page[i].ID
			if page[i].Status != models.DeliveryPending && page[i].CreatedAt < before {
				expired = append(expired, page[i].ID)
			}
		}
		if len(expired) > 0 {
			err = w.db.Write(ctx, func(tx *database.Tx) error { return deleteDeliveries(tx, expired) })
		}
		// Ids ascend with the creation time: all deliveries after a recent one are recent.
		return len(page) == prunePageSize && page[len(page)-1].CreatedAt < before, err
	})
	if err != nil {
		return fmt.Errorf("prune deliveries: %w", err)
	}
	return nil
}

// deleteDeliveries deletes the deliveries that are not pending and not locked by
// another transaction.
func deleteDeliveries(tx *database.Tx, ids []string) error {
	var deletable []string
	err := tx.ForUpdateSkipLocked().Model(&models.Delivery{}).Where("id IN ? AND status <> ?", ids, models.DeliveryPending).Pluck("id", &deletable).Error
	if err != nil || len(deletable) == 0 {
		return err
	}
	if err := tx.Delete(&models.Attempt{}, "delivery_id IN ?", deletable).Error; err != nil {
		return err
	}
	return tx.Delete(&models.Delivery{}, "id IN ?", deletable).Error
}

// OldestNeeded returns the id of the oldest event that a delivery or a queued match
// job refers to. The event log must keep that event and all later ones. It returns
// the largest int64 when no event is needed.
func (w *Webhooks) OldestNeeded(ctx context.Context) (eventID int64, err error) {
	// Jobs are read first: a job that ends in between has created its deliveries.
	oldestQueued, err := scanMinID(w.db.Read(ctx).Table("river_job").Select("MIN(CAST(args ->> 'event_id' AS BIGINT))").
		Where("queue = ? AND state IN ?", matchQueue, []string{"available", "pending", "retryable", "running", "scheduled"}))
	if err != nil {
		return 0, fmt.Errorf("find the oldest event of a match job: %w", err)
	}
	oldestDelivery, err := scanMinID(w.db.Read(ctx).Model(&models.Delivery{}).Select("MIN(event_id)"))
	if err != nil {
		return 0, fmt.Errorf("find the oldest event of a delivery: %w", err)
	}
	return min(oldestQueued, oldestDelivery), nil
}

// scanMinID reads the result of a MIN query, the largest int64 for NULL.
func scanMinID(query *gorm.DB) (int64, error) {
	var id *int64
	err := query.Scan(&id).Error
	return *cmp.Or(id, new(int64(math.MaxInt64))), err
}
