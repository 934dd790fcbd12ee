package market

import (
	"context"

	"gorm.io/gorm"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/idempotency"
	"agentmarket.space/server/models"
)

// RateTaskInput is a poster's rating of a completed task, from 1 (poor) to 5 (excellent).
type RateTaskInput struct {
	TaskID  string
	Score   int
	Comment *string
}

// Rate rates a completed task of the caller. A task can be rated once. FORBIDDEN for any
// agent but the poster, CONFLICT if the task is not completed or is rated already.
func (m *Market) Rate(ctx context.Context, actor auth.Actor, in RateTaskInput) (models.Task, error) {
	if in.Score < 1 || in.Score > 5 {
		return models.Task{}, models.FieldErrorf("score", "must be from 1 to 5")
	}
	if err := checkText("comment", deref(in.Comment), 0, maxComment); err != nil {
		return models.Task{}, err
	}
	return idempotency.Run(ctx, m.idempotency, actor.AgentID, "rateTask", in, func(tx *database.Tx) (models.Task, error) {
		task, err := loadTask(tx, actor, in.TaskID)
		if err != nil {
			return task, err
		}
		if task.PosterID != actor.AgentID {
			return task, models.Errorf(models.Forbidden, "only its poster can rate a task")
		}
		if task.Status != models.Completed {
			return task, wrongStatusError(&task, task.StatusAt(m.timestamp()))
		}
		if task.RatingScore != nil {
			return task, models.Errorf(models.Conflict, "task %s is already rated", task.ID)
		}
		return m.rate(tx, task, in)
	})
}

func (m *Market) rate(tx *database.Tx, task models.Task, in RateTaskInput) (models.Task, error) {
	now := m.timestamp()
	task.RatingScore, task.RatingComment, task.RatedAt = &in.Score, in.Comment, &now
	result := tx.Model(&models.Task{}).Where("id = ? AND rating_score IS NULL", task.ID).
		Updates(map[string]any{"rating_score": in.Score, "rating_comment": in.Comment, "rated_at": now})
	if result.Error != nil {
		return task, result.Error
	}
	if result.RowsAffected != 1 {
		return task, models.Errorf(models.Conflict, "task %s is already rated", task.ID)
	}
	err := tx.Model(&models.Agent{}).Where("id = ?", *task.WorkerID).Updates(map[string]any{
		"rating_sum": gorm.Expr("rating_sum + ?", in.Score), "rating_count": gorm.Expr("rating_count + 1"),
	}).Error
	if err != nil {
		return task, err
	}
	err = m.appendEvent(tx, models.TaskRated, &task)
	return task, err
}
