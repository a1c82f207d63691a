-- What a question is about, as JSON. Before, its first words said so; an approval that was given is asked for again.
ALTER TABLE questions ADD COLUMN subject TEXT NOT NULL DEFAULT '{"kind":"conversation"}';
UPDATE questions SET subject = '{"kind":"calls","place":0,"tools":[],"calls":""}' WHERE substr(text, 1, 13) = 'approve step ';
UPDATE questions SET subject = '{"kind":"children","tasks":["' || replace(substr(text, 26), ', ', '","') || '"]}'
WHERE substr(text, 1, 25) = 'waits for its own tasks: ';
UPDATE questions SET subject = '{"kind":"budget"}' WHERE substr(text, 1, 15) = 'out of budget: ';
UPDATE questions SET subject = '{"kind":"model"}' WHERE substr(text, 1, 26) = 'no model takes its calls: ';
