package market

import (
	"database/sql"
	"encoding/json"
	"fmt"

	"gorm.io/gorm"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// taskColumns are the columns that scanTask scans, in its order.
const taskColumns = `tasks.id, tasks.poster_id, tasks.worker_id, tasks.title, tasks.description, tasks.budget, tasks.capabilities,
	tasks.origin, tasks.status, tasks.attempt, tasks.lapses, tasks.lease_for, tasks.open_until, tasks.lease_until, tasks.result,
	tasks.rating_score, tasks.rating_comment, tasks.rated_at, tasks.created_at, tasks.accepted_at, tasks.completed_at,
	tasks.closed_at, tasks.replica, tasks.tokens`

// scanTasks returns the tasks of a query for taskColumns, with room for capacity. It
// scans without gorm, whose reflection takes as long as the query.
func scanTasks(query *gorm.DB, capacity int) ([]models.Task, error) {
	rows, err := query.Rows()
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err reports it
	tasks := make([]models.Task, 0, capacity)
	for rows.Next() {
		tasks = append(tasks, models.Task{})
		if err := scanTask(rows, &tasks[len(tasks)-1]); err != nil {
			return nil, fmt.Errorf("read a task: %w", database.TranslateReadError(query.Statement.Context, err))
		}
	}
	return tasks, database.TranslateReadError(query.Statement.Context, rows.Err())
}

func scanTask(rows *sql.Rows, t *models.Task) error {
	var capabilities []byte
	err := rows.Scan(&t.ID, &t.PosterID, &t.WorkerID, &t.Title, &t.Description, &t.Budget, &capabilities,
		&t.Origin, &t.Status, &t.Attempt, &t.Lapses, &t.LeaseFor, &t.OpenUntil, &t.LeaseUntil, &t.Result,
		&t.RatingScore, &t.RatingComment, &t.RatedAt, &t.CreatedAt, &t.AcceptedAt, &t.CompletedAt, &t.ClosedAt, &t.Replica, &t.Tokens)
	if err != nil {
		return err
	}
	return json.Unmarshal(capabilities, &t.Capabilities)
}
