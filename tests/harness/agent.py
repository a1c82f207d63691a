"""An agent of somebody else's making, for tests: it speaks the Agent Client Protocol on its standard input and output.

    agent.py MODE [FOLDER]

`plain` does its work; `asks` wants to be allowed first; `model` asks its model over the gateway it was given and leaves its key in
FOLDER; `slow` stands still in its second turn until FOLDER has the file `begun`, which it makes; `dies` ends in the middle of its turn;
`garbage` does not speak the protocol. Its session is a number of turns in its home.
"""

import json
import os
import sys
import time
import urllib.request

mode = sys.argv[1]
folder = sys.argv[2] if len(sys.argv) > 2 else "."
session_file = os.path.join(os.environ["HOME"], "turns")


def send(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def update(session, **what):
    send({"method": "session/update", "params": {"sessionId": session, "update": what}})


def say(session, text):
    update(session, sessionUpdate="agent_message_chunk", content={"type": "text", "text": text})


def ask_model():
    body = {"model": os.environ["HELIX_MODEL"], "messages": [{"role": "user", "content": "a question over the gateway"}]}
    headers = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"}
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]


def allowed(session):
    update(session, sessionUpdate="tool_call", toolCallId="c1", title="write made.txt", kind="edit", status="pending")
    options = [
        {"optionId": "yes", "name": "Allow", "kind": "allow_once"},
        {"optionId": "no", "name": "Reject", "kind": "reject_once"},
    ]
    call = {"toolCallId": "c1", "title": "write made.txt", "kind": "edit", "rawInput": {"path": "made.txt"}}
    send({"id": 900, "method": "session/request_permission", "params": {"sessionId": session, "toolCall": call, "options": options}})
    for line in sys.stdin:
        answer = json.loads(line)
        if answer.get("id") == 900:
            return answer["result"]["outcome"].get("optionId")
    return None


def turn(session, text):
    turns = 1 + (int(open(session_file).read()) if os.path.exists(session_file) else 0)
    if mode == "dies":
        with open("half.txt", "w") as half:
            half.write("half\n")
        print("fatal: no licence was found", file=sys.stderr, flush=True)
        sys.exit(3)
    if mode == "slow" and turns == 2 and not os.path.exists(os.path.join(folder, "begun")):
        with open("made.txt", "a") as made:
            made.write("half a turn\n")
        open(os.path.join(folder, "begun"), "w").close()
        time.sleep(600)
    if mode == "model":
        with open(os.path.join(folder, "key"), "w") as key:
            key.write(os.environ["OPENAI_API_KEY"])
        say(session, "The model says: " + ask_model() + " ")
    if mode == "asks" and allowed(session) != "yes":
        return "cancelled"
    with open("made.txt", "a") as made:
        made.write("turn %d\n" % turns)
    update(session, sessionUpdate="tool_call", toolCallId="c2", title="write made.txt", kind="edit", status="completed",
           content=[{"type": "diff", "path": "made.txt", "newText": "turn"}])
    with open(session_file, "w") as kept:
        kept.write(str(turns))
    say(session, "Turn %d of my session. I was told: %s" % (turns, text))
    return "end_turn"


if mode == "garbage":
    for number in range(100):
        print("Welcome to the interactive mode!", flush=True)
    time.sleep(600)

for line in sys.stdin:
    message = json.loads(line)
    method, id, params = message.get("method"), message.get("id"), message.get("params")
    if method == "initialize":
        about = {"name": "fake", "version": "1"}
        send({"id": id, "result": {"protocolVersion": 1, "agentCapabilities": {"loadSession": True}, "agentInfo": about}})
    elif method == "session/new":
        os.makedirs(os.environ["HOME"], exist_ok=True)
        send({"id": id, "result": {"sessionId": "s1"}})
    elif method == "session/load":
        if os.path.exists(session_file) or mode == "asks":
            send({"id": id, "result": None})
        else:
            send({"id": id, "error": {"code": -32002, "message": "there is no such session"}})
    elif method == "session/prompt":
        stop = turn(params["sessionId"], params["prompt"][0]["text"])
        send({"id": id, "result": {"stopReason": stop}})
