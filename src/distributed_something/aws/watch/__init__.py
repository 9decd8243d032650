"""What watches a run on AWS: heartbeats, alarms, dashboard, logs, the schedule of the auto-monitor."""
