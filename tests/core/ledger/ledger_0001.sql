-- The ledger of 0.1.0, as SQLite shows it. Never changed.

CREATE TABLE endpoint (
	id INTEGER NOT NULL,
	base_url TEXT,
	organization TEXT,
	recorded_at FLOAT,
	PRIMARY KEY (id)
);

CREATE TABLE submission (
	seq INTEGER NOT NULL,
	id VARCHAR(64) NOT NULL,
	pipeline VARCHAR(100) NOT NULL,
	partition TEXT NOT NULL,
	created_at FLOAT NOT NULL,
	rows INTEGER NOT NULL,
	rejected INTEGER NOT NULL,
	requests INTEGER NOT NULL,
	written INTEGER NOT NULL,
	headers TEXT NOT NULL,
	max_attempts INTEGER NOT NULL,
	max_requests INTEGER NOT NULL,
	max_bytes INTEGER NOT NULL,
	began_at FLOAT,
	joined_seq INTEGER,
	joined_at FLOAT,
	counts TEXT,
	ask_again INTEGER NOT NULL,
	final_at FLOAT,
	announced_at FLOAT,
	PRIMARY KEY (seq),
	UNIQUE (id)
);

CREATE INDEX submission_by_partition ON submission (pipeline, partition, seq);

CREATE TABLE request_file (
	id VARCHAR(160) NOT NULL,
	submission_id VARCHAR(64) NOT NULL,
	pipeline VARCHAR(100) NOT NULL,
	partition TEXT NOT NULL,
	name VARCHAR(80) NOT NULL,
	requests INTEGER NOT NULL,
	bytes INTEGER NOT NULL,
	attempt INTEGER NOT NULL,
	state VARCHAR(16) NOT NULL,
	not_before FLOAT NOT NULL,
	error TEXT,
	batch_id VARCHAR(80),
	collected_seq INTEGER,
	PRIMARY KEY (id),
	FOREIGN KEY(submission_id) REFERENCES submission (id)
);

CREATE INDEX request_file_by_submission ON request_file (submission_id);

CREATE INDEX request_file_by_state ON request_file (state);

CREATE TABLE wait (
	submission_id VARCHAR(64) NOT NULL,
	file_id VARCHAR(160) NOT NULL,
	PRIMARY KEY (submission_id, file_id),
	FOREIGN KEY(submission_id) REFERENCES submission (id),
	FOREIGN KEY(file_id) REFERENCES request_file (id)
);

CREATE TABLE intent (
	id INTEGER NOT NULL,
	file_id VARCHAR(160) NOT NULL,
	requests INTEGER NOT NULL,
	bytes INTEGER NOT NULL,
	anchor_id VARCHAR(80),
	anchor_created_at FLOAT,
	started_at FLOAT NOT NULL,
	last_byte_at FLOAT,
	outcome VARCHAR(16) NOT NULL,
	watch_until FLOAT,
	PRIMARY KEY (id),
	FOREIGN KEY(file_id) REFERENCES request_file (id)
);

CREATE INDEX intent_by_file ON intent (file_id);

CREATE INDEX intent_by_outcome ON intent (outcome);

CREATE TABLE batch (
	id VARCHAR(80) NOT NULL,
	file_id VARCHAR(160),
	pipeline VARCHAR(100),
	state VARCHAR(16) NOT NULL,
	provisional BOOLEAN NOT NULL,
	paid_twice BOOLEAN NOT NULL,
	processing_status VARCHAR(16) NOT NULL,
	requests INTEGER NOT NULL,
	counts TEXT NOT NULL,
	created_at FLOAT,
	expires_at FLOAT,
	ended_at FLOAT,
	submitted_at FLOAT,
	missing_since FLOAT,
	next_poll_at FLOAT NOT NULL,
	downloads INTEGER NOT NULL,
	PRIMARY KEY (id),
	FOREIGN KEY(file_id) REFERENCES request_file (id)
);

CREATE INDEX batch_by_file ON batch (file_id);

CREATE INDEX batch_by_state ON batch (state);

CREATE TABLE lease (
	name VARCHAR(200) NOT NULL,
	owner VARCHAR(120) NOT NULL,
	until FLOAT NOT NULL,
	PRIMARY KEY (name)
);

CREATE TABLE round (
	submission_id VARCHAR(64) NOT NULL,
	number INTEGER NOT NULL,
	state VARCHAR(8) NOT NULL,
	reason TEXT NOT NULL,
	opened_at FLOAT NOT NULL,
	until FLOAT NOT NULL,
	PRIMARY KEY (submission_id, number),
	FOREIGN KEY(submission_id) REFERENCES submission (id)
);

CREATE TABLE history (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	at FLOAT NOT NULL,
	process VARCHAR(120) NOT NULL,
	kind VARCHAR(16) NOT NULL,
	entity VARCHAR(160) NOT NULL,
	from_state VARCHAR(20),
	to_state VARCHAR(20) NOT NULL,
	reason TEXT NOT NULL
);

CREATE INDEX history_by_entity ON history (entity);
