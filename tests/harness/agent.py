"""An agent of somebody else's making, for tests: it speaks the Agent Client Protocol on its standard input and output.

    agent.py MODE [FOLDER]

`plain` does its work; `asks` wants to be allowed first; `model` asks its model over the gateway it was given and leaves its key in
FOLDER; `slow` stands still in its second turn until FOLDER has the file `begun`, which it makes; `spends` asks its model, and stands
still likewise. Its session is a number of turns in its home.

What goes wrong: `dies` ends in the middle of its turn, having asked its model nothing; `dies-once` asks it, and ends where FOLDER has no
`begun`; `garbage` does not speak the protocol; `mute` never answers at all; `hangs` answers everything but the prompt; `floods` says
more than anybody keeps, `huge` in one message; `sessionless` begins a session without a name, `endless` ends a turn without saying why;
`babbles` says much that is no message of the protocol, and does its work; `stubborn` asks, and goes on when its turn is cancelled.
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


def flood(session):
    for number in range(24):
        say(session, "w" * (1 << 20))
        update(session, sessionUpdate="agent_thought_chunk", content={"type": "text", "text": "t" * (1 << 20)})
        update(session, sessionUpdate="tool_call", toolCallId="f%d" % number, title="read " + "x" * (1 << 20), kind="read",
               status="completed", rawInput={"path": "p" * (1 << 20)},
               content=[{"type": "content", "content": {"type": "text", "text": "r" * (1 << 20)}}])
    for number in range(10000):
        update(session, sessionUpdate="tool_call", toolCallId="g%d" % number, title="read", kind="read", status="completed")


def babble(session):
    for line in ['{"jsonrpc": "2.0", "method": "session/upd', "not JSON at all", "[1, 2]", "null", '"text"', "{}", "\u0000", ""]:
        print(line, flush=True)
    sys.stdout.buffer.write(b"\xff\xfe\n")
    send({"id": "nobody asked", "result": 1})
    send({"id": 12345, "error": {"code": "a text", "message": 7}})
    send({"method": "session/update"})
    send({"method": "session/update", "params": {"sessionId": session, "update": 7}})
    send({"method": "session/update", "params": {"sessionId": "another", "update": {"sessionUpdate": "agent_message_chunk"}}})
    update(session, sessionUpdate="of the future", content=[])
    update(session, sessionUpdate="tool_call", toolCallId={"not": "a text"})
    update(session, sessionUpdate="tool_call_update", toolCallId="never begun", status="completed", content=None, locations=7)
    send({"id": 901, "method": "fs/read_text_file", "params": {"sessionId": session, "path": "/etc/passwd"}})
    send({"id": 902, "method": "session/request_permission", "params": {"no": "call"}})
    refused = set()
    for line in sys.stdin:
        answer = json.loads(line)
        if "error" in answer:
            refused.add(answer["id"])
        if refused == {901, 902}:
            return


def turn(session, text):
    turns = 1 + (int(open(session_file).read()) if os.path.exists(session_file) else 0)
    if mode == "dies":
        with open("half.txt", "w") as half:
            half.write("half\n")
        print("fatal: no licence was found", file=sys.stderr, flush=True)
        sys.exit(3)
    if mode == "dies-once" and not os.path.exists(os.path.join(folder, "begun")):
        open(os.path.join(folder, "begun"), "w").close()
        ask_model()
        print("fatal: the disk of the agent is on fire", file=sys.stderr, flush=True)
        os.kill(os.getpid(), 9)
    if mode == "hangs":
        open(os.path.join(folder, "begun"), "w").close()
        time.sleep(600)
    if mode == "stubborn":
        allowed(session)
        time.sleep(600)
    if mode == "asks":
        update(session, sessionUpdate="agent_thought_chunk", content={"type": "text", "text": "I ask first."})
    if mode == "floods":
        flood(session)
    if mode == "huge":
        say(session, "x" * (33 << 20))
    if mode == "babbles":
        babble(session)
    if mode == "slow" and turns == 2 and not os.path.exists(os.path.join(folder, "begun")):
        with open("made.txt", "a") as made:
            made.write("half a turn\n")
        open(os.path.join(folder, "begun"), "w").close()
        time.sleep(600)
    if mode == "spends":
        ask_model()
        if not os.path.exists(os.path.join(folder, "begun")):
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


if mode == "mute":
    time.sleep(600)
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
        send({"id": id, "result": {} if mode == "sessionless" else {"sessionId": "s1"}})
    elif method == "session/load":
        if os.path.exists(session_file) or mode == "asks":
            send({"id": id, "result": None})
        else:
            send({"id": id, "error": {"code": -32002, "message": "there is no such session"}})
    elif method == "session/prompt":
        stop = turn(params["sessionId"], params["prompt"][0]["text"])
        send({"id": id, "result": {} if mode == "endless" else {"stopReason": stop}})
