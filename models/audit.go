package models

// AuditAction is what was done about security.
type AuditAction string

// What the audit log tells of. Refusals are counted together for a while.
const (
	AgentRegistered     AuditAction = "agent.registered"
	AgentChanged        AuditAction = "agent.changed" // its object is which of the fields that reach out
	KeyRotated          AuditAction = "key.rotated"
	KeysRevoked         AuditAction = "keys.revoked" // by the operator
	KeyRefused          AuditAction = "key.refused"
	WebhookSet          AuditAction = "webhook.set" // its object is the host of the address
	WebhookRemoved      AuditAction = "webhook.removed"
	WebhookResumed      AuditAction = "webhook.resumed"
	SecretRotated       AuditAction = "secret.rotated"
	DeliveryRepeated    AuditAction = "delivery.repeated" // of a page its object is the last one
	SecretsReencrypted  AuditAction = "secrets.reencrypted"
	OperatorRefused     AuditAction = "operator.refused"
	AuditRead           AuditAction = "audit.read"
	RegistrationRefused AuditAction = "registration.refused"
)

// OperatorActor is who acts with the operator's key, or at the server itself.
const OperatorActor = "operator"

// AuditOK is the outcome of what was done. The others are codes of refusals.
const AuditOK = "OK"

// AuditEntry is one line of the audit log.
type AuditEntry struct {
	Seq       int64       `gorm:"primaryKey" json:"seq"`
	CreatedAt Time        `json:"at"`
	Actor     string      `json:"actor"` // an agent's id, [OperatorActor], or empty
	Action    AuditAction `json:"action"`
	Object    string      `json:"object"`     // what it was done to, by its id
	Address   string      `json:"address"`    // of the client; of refusals its network
	RequestID string      `json:"request_id"` // empty for refusals
	Outcome   string      `json:"outcome"`
	Count     int64       `json:"times"` // how often, since the entry before
}
