-- The run that may be sending: set before the call, cleared only when it is known that nothing was sent. `setbacks` took its place
-- before; it stays for workers of the version before, which still count in it, until they are gone.
ALTER TABLE jobs ADD COLUMN send_run uuid;
