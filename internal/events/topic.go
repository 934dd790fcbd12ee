package events

import "agentmarket.space/server/models"

// Topic is a key that events are indexed by. An event is offered only to feeds with
// one of its topics.
type Topic struct {
	kind topicKind
	name string
}

type topicKind byte

const (
	topicAll topicKind = iota
	topicPostedTasks
	topicCapability
	topicAgent
)

// AllEventsTopic is the topic of every event.
func AllEventsTopic() Topic { return Topic{kind: topicAll} }

// PostedTasksTopic is the topic of task.posted events.
func PostedTasksTopic() Topic { return Topic{kind: topicPostedTasks} }

// CapabilityTopic is the topic of task.posted events whose task requires the
// capability.
func CapabilityTopic(capability string) Topic { return Topic{topicCapability, capability} }

// AgentTopic is the topic of events about an agent: the tasks it posted or works on,
// its wallet, webhook and key.
func AgentTopic(agentID string) Topic { return Topic{topicAgent, agentID} }

// topicsOf returns the topics of an event.
func topicsOf(event *models.Event) []Topic {
	topics := []Topic{AllEventsTopic()}
	if event.Kind == models.TaskPosted && event.Task != nil {
		topics = append(topics, PostedTasksTopic())
		for _, capability := range event.Task.Capabilities {
			topics = append(topics, CapabilityTopic(capability))
		}
	}
	for _, agent := range []*string{event.PosterID, event.WorkerID, event.AgentID} {
		if agent != nil {
			topics = append(topics, AgentTopic(*agent))
		}
	}
	return topics
}

// topicIndex holds the feeds of each topic.
type topicIndex map[Topic]map[*Feed]struct{}

func (x topicIndex) add(feed *Feed) {
	for _, topic := range feed.interest.Topics {
		if x[topic] == nil {
			x[topic] = map[*Feed]struct{}{}
		}
		x[topic][feed] = struct{}{}
	}
}

func (x topicIndex) remove(feed *Feed) {
	for _, topic := range feed.interest.Topics {
		if delete(x[topic], feed); len(x[topic]) == 0 {
			delete(x, topic)
		}
	}
}
