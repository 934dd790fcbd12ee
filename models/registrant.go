package models

// Registrant is the registration quota of a network: an IPv4 address or an IPv6 /64.
// A row with a full quota is equivalent to no row and is deleted.
type Registrant struct {
	Network string `gorm:"primaryKey"`
	// FullAt is when the full burst is available again. Each registration moves it
	// later, starting from the current time at the earliest.
	FullAt Time
}
