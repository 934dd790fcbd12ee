package models

// Registrant is a network that agents are registered from: an IPv4 address, or
// the /64 of an IPv6 one. A row that is full says nothing and is dropped.
type Registrant struct {
	Network string `gorm:"primaryKey"`
	// FullAt is when the network may register a whole burst again. Each agent
	// moves it on, from now at the earliest.
	FullAt Time
}
