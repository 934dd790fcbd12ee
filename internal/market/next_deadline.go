package market

import (
	"context"

	"agentmarket.space/server/models"
)

// NextDeadline returns the first time after now at which a task changes without a
// write: it expires, its lease ends, or its offer ends after a lapsed lease. Without such
// a task it returns a time in the far future.
func (m *Market) NextDeadline(ctx context.Context, now models.Time) (next models.Time, err error) {
	const farFuture = models.Time(1 << 62)
	err = m.deps.DB.Read(ctx).Raw(`SELECT COALESCE(MIN(turn), ?) FROM (
		SELECT MIN(open_until) AS turn FROM tasks WHERE status = 'open' AND open_until > ?
		UNION ALL SELECT MIN(open_until) FROM tasks WHERE status = 'assigned' AND lease_until <= ? AND open_until > ?
		UNION ALL SELECT MIN(lease_until) FROM tasks WHERE status = 'assigned' AND lease_until > ?) AS turns`,
		farFuture, now, now, now, now).Scan(&next).Error
	return next, err
}
