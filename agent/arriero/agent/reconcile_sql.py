"""The scratch database in which a Butler and its ledger are compared (`arriero.agent.reconcile`)."""

SCHEMA = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
CREATE TABLE ledger (id INTEGER PRIMARY KEY, fence INTEGER, state TEXT, scope TEXT, name TEXT, rse TEXT, uri TEXT,
                     bytes INTEGER, replica TEXT, gone INTEGER, dataset_id TEXT);
CREATE TABLE expected (id INTEGER, dataset_id TEXT);
CREATE TABLE stored (dataset_id TEXT, uri TEXT, own INTEGER, bytes INTEGER, part INTEGER);
CREATE TABLE looked_at (uri TEXT PRIMARY KEY, bytes INTEGER) WITHOUT ROWID;
"""
INDEXES = """
CREATE INDEX expected_id ON expected (id); CREATE INDEX ledger_uri ON ledger (uri); CREATE INDEX ledger_dataset ON ledger (dataset_id);
CREATE INDEX stored_uri ON stored (uri); CREATE INDEX stored_dataset ON stored (dataset_id);
ANALYZE;
"""
LATE = """
SELECT dataset_id FROM ledger WHERE state = 'ingested' AND dataset_id IS NOT NULL
AND NOT EXISTS (SELECT 1 FROM stored WHERE stored.dataset_id = ledger.dataset_id)
UNION
SELECT expected.dataset_id FROM expected JOIN ledger ON ledger.id = expected.id WHERE state = 'ingested'
AND NOT EXISTS (SELECT 1 FROM stored WHERE stored.dataset_id = expected.dataset_id)
"""
VIEWS = """
CREATE VIEW both AS
SELECT ledger.*, stored.dataset_id AS stored_id, stored.bytes AS stored_bytes, own, part,
       (part OR stored.bytes IN (-1, ledger.bytes)) AS same_size
FROM ledger JOIN stored ON stored.uri = ledger.uri;
CREATE VIEW nowhere AS
SELECT * FROM ledger WHERE state = 'ingested'
AND NOT EXISTS (SELECT 1 FROM stored WHERE stored.uri = ledger.uri);
"""
