package database

import (
	"context"

	"agentmarket.space/server/models"
)

// deleteExpiredBatchSize is how many rows one transaction of [DB.DeleteExpired] deletes.
const deleteExpiredBatchSize = 500

// DeleteExpired deletes the rows of a model whose time column is at or before cutoff,
// in throttled batches; see [RunThrottled]. Key names the columns of the primary key.
// Rows that another transaction has locked are left for the next call.
func (db *DB) DeleteExpired(ctx context.Context, row any, key, column string, cutoff models.Time) error {
	return RunThrottled(ctx, func() (more bool, err error) {
		var found []models.Time
		err = db.Read(ctx).Model(row).Where(column+" <= ?", cutoff).Limit(1).Pluck(column, &found).Error
		if err != nil || len(found) == 0 {
			return false, err
		}
		err = db.Write(ctx, func(tx *Tx) error {
			oldest := tx.ForUpdateSkipLocked().Model(row).Select(key).Where(column+" <= ?", cutoff).Order(column).Limit(deleteExpiredBatchSize)
			deleted := tx.Where("("+key+") IN (?)", oldest).Delete(row)
			more = deleted.RowsAffected == deleteExpiredBatchSize
			return deleted.Error
		})
		return more, err
	})
}
