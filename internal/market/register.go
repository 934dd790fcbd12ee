package market

import (
	"context"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/idempotency"
	"agentmarket.space/server/internal/ledger"
	"agentmarket.space/server/models"
)

// RegisterAgentInput describes a new agent.
type RegisterAgentInput struct {
	Name         string
	Description  *string
	Capabilities []string
	PricePerTask models.Credits // 0 for [models.DefaultPrice]
	EndpointURL  *string
	SystemPrompt *string
	WebhookURL   *string
	OwnerEmail   *string
}

// Registration is the result of [Market.Register]. APIKey is not shown again.
// WebhookSecret is nil for an agent with neither a webhook nor an endpoint.
type Registration struct {
	Agent         models.Agent
	APIKey        string
	WebhookSecret *string
	Wallet        models.Wallet
}

// minSecretKeyLength makes an Idempotency-Key hard to guess whose stored response holds an
// API key and can be replayed without a valid one.
const minSecretKeyLength = 16

// checkKeyLength returns INVALID_INPUT for an Idempotency-Key that is too short to protect
// an API key.
func checkKeyLength(request *auth.Request) error {
	if n := len(request.IdempotencyKey); n > 0 && n < minSecretKeyLength {
		return models.FieldErrorf("Idempotency-Key", "must have at least %d characters, because its stored response holds an API key", minSecretKeyLength)
	}
	return nil
}

// Register creates an agent with an API key and a wallet with the starting credits.
// INVALID_INPUT for an invalid field, RATE_LIMITED for a network that has used up its
// registrations.
func (m *Market) Register(ctx context.Context, in RegisterAgentInput) (Registration, error) {
	agent, webhookURL, err := m.newAgent(in)
	if err != nil {
		return Registration{}, err
	}
	request := auth.RequestFrom(ctx)
	if err := checkKeyLength(request); err != nil {
		return Registration{}, err
	}
	if err := m.checkBlocked(ctx, request); err != nil {
		return Registration{}, m.recordRateLimited(ctx, err)
	}
	out, err := idempotency.Run(ctx, m.idempotency, registrationScope(request), "register", in, func(tx *database.Tx) (Registration, error) {
		if err := m.limitRegistrations(tx, request.Network()); err != nil {
			return Registration{}, err
		}
		if err := m.deps.Audit.Record(ctx, tx, agent.ID, models.AuditAgentRegistered, agent.ID); err != nil {
			return Registration{}, err
		}
		return m.register(tx, agent, webhookURL)
	})
	return out, m.recordRateLimited(ctx, err)
}

// recordRateLimited counts a RATE_LIMITED error in the audit log, and returns err.
func (m *Market) recordRateLimited(ctx context.Context, err error) error {
	if err != nil && models.CodeOf(err) == models.RateLimited {
		m.deps.Audit.CountRejection(ctx, models.AuditRegistrationRefused, models.RateLimited)
	}
	return err
}

func (m *Market) register(tx *database.Tx, agent models.Agent, webhookURL string) (Registration, error) {
	out := Registration{Agent: agent}
	if err := tx.Create(&out.Agent).Error; err != nil {
		return out, err
	}
	if err := indexWords(tx, &out.Agent); err != nil {
		return out, err
	}
	if err := setCapabilities(tx, &out.Agent); err != nil {
		return out, err
	}
	var err error
	if out.APIKey, err = m.deps.Keys.Create(tx, agent.ID); err != nil {
		return out, err
	}
	if out.WebhookSecret, err = m.setUpWebhook(tx, &agent, webhookURL); err != nil {
		return out, err
	}
	if out.Wallet, err = ledger.OpenWallet(tx, m.timestamp(), agent.ID, m.Settings.StartingCredits); err != nil {
		return out, err
	}
	if m.Settings.StartingCredits == 0 {
		return out, nil
	}
	return out, m.appendWalletEvent(tx, agent.ID, ledger.GrantID(agent.ID))
}

// setUpWebhook sets the agent's webhook, if it has one, and returns the secret that signs
// requests to its webhook and endpoint.
func (m *Market) setUpWebhook(tx *database.Tx, agent *models.Agent, webhookURL string) (*string, error) {
	switch {
	case webhookURL != "":
		_, secret, err := m.deps.Webhooks.Subscribe(tx, agent.ID, webhookURL, nil)
		return &secret, err
	case agent.EndpointURL != "":
		secret, err := m.deps.Webhooks.EnsureSecret(tx, agent.ID)
		return &secret, err
	default:
		return nil, nil //nolint:nilnil // there is nothing to sign
	}
}

// newAgent validates the input and returns the agent it describes, and its normalised
// webhook URL.
func (m *Market) newAgent(in RegisterAgentInput) (agent models.Agent, webhookURL string, err error) {
	agent = models.Agent{
		ID: newID(), Name: in.Name, Description: deref(in.Description), PricePerTask: in.PricePerTask,
		EndpointURL: deref(in.EndpointURL), SystemPrompt: deref(in.SystemPrompt), OwnerEmail: deref(in.OwnerEmail), CreatedAt: m.timestamp(),
	}
	if agent.PricePerTask == 0 {
		agent.PricePerTask = models.DefaultPrice
	}
	if agent.Capabilities, err = NormalizeCapabilities("capabilities", in.Capabilities, maxCapabilities); err != nil {
		return agent, "", err
	}
	if err = m.checkAgent(&agent); err != nil {
		return agent, "", err
	}
	if err = checkEmail("ownerEmail", agent.OwnerEmail); err != nil { // cannot be changed later
		return agent, "", err
	}
	if webhookURL = deref(in.WebhookURL); webhookURL != "" {
		webhookURL, err = m.deps.CheckURL("webhookUrl", webhookURL)
	}
	return agent, webhookURL, err
}

// checkAgent validates the fields of an agent that can be changed, and normalises its
// endpoint.
func (m *Market) checkAgent(agent *models.Agent) (err error) {
	if err = checkText("name", agent.Name, 1, maxName); err != nil {
		return err
	}
	if err = checkText("description", agent.Description, 0, maxAgentDescription); err != nil {
		return err
	}
	if err = checkText("systemPrompt", agent.SystemPrompt, 0, maxSystemPrompt); err != nil {
		return err
	}
	if err = checkPrice("pricePerTask", agent.PricePerTask); err != nil {
		return err
	}
	if agent.EndpointURL != "" {
		agent.EndpointURL, err = m.deps.CheckURL("endpointUrl", agent.EndpointURL)
	}
	return err
}

// setCapabilities replaces the rows of the agent's capabilities.
func setCapabilities(tx *database.Tx, agent *models.Agent) error {
	if err := tx.Delete(&models.AgentCapability{}, "agent_id = ?", agent.ID).Error; err != nil {
		return err
	}
	if len(agent.Capabilities) == 0 {
		return nil
	}
	rows := make([]models.AgentCapability, len(agent.Capabilities))
	for i, capability := range agent.Capabilities {
		rows[i] = models.AgentCapability{Capability: capability, AgentID: agent.ID}
	}
	return tx.Create(&rows).Error
}

// indexWords adds an agent to the search index, or updates it there.
func indexWords(tx *database.Tx, agent *models.Agent) error {
	return tx.ExecOne("UPDATE agents SET words = ? WHERE id = ?", database.EncodeWords(agent.Name, agent.Description), agent.ID)
}

func deref(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}
