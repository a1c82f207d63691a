-- What a step said beyond 64 KiB lies in the content store, under this id; `messages` is an empty list then.
ALTER TABLE steps ADD COLUMN long_messages TEXT;
