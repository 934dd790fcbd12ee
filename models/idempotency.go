package models

// IdempotencyKey is a client's name for one effect. Response is the sealed answer
// of the effect, nil while it is under way.
type IdempotencyKey struct {
	Scope       string `gorm:"primaryKey"`
	Key         string `gorm:"primaryKey"`
	Fingerprint []byte
	Response    []byte
	TaskID      *string
	CreatedAt   Time
}
