package market

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"agentmarket.space/server/internal/audit"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/idempotency"
	"agentmarket.space/server/models"
)

// Settings configure a [Market].
type Settings struct {
	StartingCredits   models.Credits // granted at registration, may be 0
	MinBudget         models.Credits // minimum budget of a task, at least 2
	OpenFor           time.Duration  // default time that a task stays open
	Lease             time.Duration  // default time that a worker has
	ExecuteTimeout    time.Duration  // how long Execute waits for a result, and the timeout of an endpoint
	ExecutionDeadline time.Duration  // default deadline of a promised result; longer than ExecuteTimeout
	EventRetention    time.Duration  // retention of events; 0 keeps all
	Spending          SpendingLimits
	AuditRetention    time.Duration // retention of the audit log; 0 keeps all
	// RegistrationInterval is the interval at which a network regains one registration, and
	// RegistrationBurst the most it can have; a RegistrationInterval of 0 disables the limit.
	RegistrationInterval time.Duration
	RegistrationBurst    int
}

// Deps are the dependencies of a [Market].
type Deps struct {
	DB       *database.DB
	Events   *events.Log
	Keys     *auth.Keys
	Cipher   *auth.Cipher // encrypts stored responses
	Audit    *audit.Log
	Webhooks Webhooks
	Runner   Runner
	// CheckURL normalises a URL that the server will call. INVALID_INPUT, with the name
	// of the field, for a URL that must not be called.
	CheckURL func(field, url string) (string, error)
	// CheckHost resolves the host of such a URL. INVALID_INPUT for one with an address
	// that must not be called.
	CheckHost func(ctx context.Context, field, url string) error
	Now       func() time.Time
	Logger    *slog.Logger
}

// Market is the marketplace. It is safe for concurrent use.
type Market struct {
	Settings Settings

	deps         Deps
	idempotency  *idempotency.Store
	executions   executions
	stopping     chan struct{} // closed by StopWaiting
	sweepRetries sweepRetries
	blocked      blockedNetworks
	bounds       listBounds
}

// New returns a market with its dependencies and settings.
func New(deps Deps, settings Settings) *Market {
	return &Market{
		Settings: settings, deps: deps, idempotency: idempotency.NewStore(deps.DB, deps.Cipher, deps.Now),
		stopping: make(chan struct{}), bounds: defaultListBounds,
	}
}

// Now returns the time of the market's clock.
func (m *Market) Now() time.Time { return m.deps.Now() }

func (m *Market) timestamp() models.Time { return models.NewTime(m.deps.Now()) }

// newID returns a UUIDv7. Ids sort by creation time.
func newID() string { return uuid.Must(uuid.NewV7()).String() }

// newTaskEvent returns an event about a task.
func (m *Market) newTaskEvent(kind models.EventKind, task *models.Task) models.Event {
	return models.Event{Kind: kind, TaskID: &task.ID, PosterID: &task.PosterID, WorkerID: task.WorkerID, CreatedAt: m.timestamp()}
}

// appendEvent appends an event about a task, and notifies webhooks if they can subscribe
// to its kind.
func (m *Market) appendEvent(tx *database.Tx, kind models.EventKind, task *models.Task) error {
	event := m.newTaskEvent(kind, task)
	if kind.WebhookEvent() == "" {
		return m.deps.Events.AppendNoID(tx, event)
	}
	if err := m.deps.Events.Append(tx, &event); err != nil {
		return err
	}
	return m.deps.Webhooks.Notify(tx, &event)
}

// appendWalletEvent appends the event of a transfer that changed an agent's balance. Call
// it after the transfer, while the wallet is locked, so that the events of a wallet are
// in the order of its transfers.
func (m *Market) appendWalletEvent(tx *database.Tx, agentID, transferID string) error {
	return m.deps.Events.AppendNoID(tx, models.Event{
		Kind: models.WalletChanged, AgentID: &agentID, TransferID: &transferID, CreatedAt: m.timestamp(),
	})
}

// TaskResult is the result of an operation on a task: the task, and the caller's wallet.
type TaskResult struct {
	Task   models.Task
	Wallet models.Wallet
}

// loadTask locks and returns a task for an operation of the actor. NOT_FOUND for another
// agent's direct hire.
func loadTask(tx *database.Tx, actor auth.Actor, taskID string) (models.Task, error) {
	task, err := lockTask(tx, taskID)
	if err != nil {
		return models.Task{}, database.TranslateNotFound(err, "task", taskID)
	}
	if task.Origin == models.OriginDirect && !task.IsParty(actor.AgentID) {
		return models.Task{}, models.Errorf(models.NotFound, "task %q not found", taskID)
	}
	return *task, nil
}

// lockTask locks and returns a task without checking who may see it.
func lockTask(tx *database.Tx, taskID string) (*models.Task, error) {
	task := &models.Task{}
	return task, tx.ForUpdate().Take(task, "id = ?", taskID).Error
}

// transition changes a task's status and other columns, if the row still has the status
// and the attempt that it was loaded with. Of two concurrent operations only one
// succeeds; the other gets CONFLICT.
func transition(tx *database.Tx, before *models.Task, next models.Status, columns map[string]any) error {
	if !before.Status.CanBecome(next) {
		return wrongStatusError(before, before.Status)
	}
	columns["status"] = next
	result := tx.Model(&models.Task{}).
		Where("id = ? AND status = ? AND attempt = ?", before.ID, before.Status, before.Attempt).
		Updates(columns)
	if result.Error != nil {
		return result.Error
	}
	if result.RowsAffected != 1 {
		return models.Errorf(models.Conflict, "task %s was changed by another request", before.ID)
	}
	return nil
}

func wrongStatusError(task *models.Task, status models.Status) *models.Error {
	return models.Errorf(models.Conflict, "task %s is %s", task.ID, status)
}

// readWallet returns an agent's wallet as seen by the transaction.
func readWallet(tx *database.Tx, agentID string) (models.Wallet, error) {
	var wallet models.Wallet
	err := tx.Take(&wallet, "agent_id = ?", agentID).Error
	return wallet, err
}

// checkUnlessReplayed calls check, which depends on something outside the database,
// unless the request's Idempotency-Key was used before in scope: a replay does not
// depend on the check. It reports whether a replay is expected. If the key turns out
// to have expired since, the caller returns [idempotency.ErrExpired].
func (m *Market) checkUnlessReplayed(ctx context.Context, scope string, check func() error) (replay bool, err error) {
	replay, err = m.idempotency.Used(ctx, scope)
	if replay || err != nil {
		return replay, err
	}
	return false, check()
}
