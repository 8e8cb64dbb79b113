// Slash commands: `/help` and `/roll` are answered to the sender, `/poll` and `/vote` run a poll in a room. A command
// is a message of the type `command`, with the line as its payload.
import * as signalbox from "@signalbox/plugin";
import type { Action, Events, Message } from "@signalbox/plugin";

/** How long a poll accepts votes, in seconds. */
const POLL_SECONDS = 3600;

interface Poll {
  id: number;
  question: string;
  choices: string[];
}

type Command = (words: string, message: Message) => Action[];

const commands: Record<string, { help: string; run: Command }> = {
  help: { help: "/help: what there is", run: help },
  roll: { help: "/roll 2d6: throws dice", run: roll },
  poll: { help: "/poll Lunch? | soup | salad: asks the room", run: openPoll },
  vote: { help: "/vote 1: answers the room's poll", run: vote },
};

function handle(message: Message): Action[] {
  const line = signalbox.payload(message);
  if (typeof line !== "string") signalbox.reject("invalid_payload", "a command is a text such as /help");
  const [, name = "", words = ""] = /^\/(\w+)\s*(.*)$/s.exec(line.trim()) ?? [];
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (!command) signalbox.reject("unknown_command", `${line.slice(0, 40)} is no command; try /help`);
  return command.run(words, message);
}

function help(): Action[] {
  return [signalbox.reply("command.help", Object.values(commands).map((command) => command.help))];
}

function roll(words: string): Action[] {
  const [, count = "1", sides = "6"] = /^(\d{1,2})d(\d{1,3})$/.exec(words || "1d6") ?? signalbox.reject("usage", commands.roll!.help);
  if (Number(count) < 1 || Number(sides) < 1) signalbox.reject("usage", commands.roll!.help);
  const dice = Array.from({ length: Number(count) }, () => (signalbox.context.random() % Number(sides)) + 1);
  return [signalbox.reply("command.roll", { dice, sum: dice.reduce((sum, die) => sum + die, 0) })];
}

function openPoll(words: string, message: Message): Action[] {
  const room = roomOf(message);
  const [question = "", ...choices] = words.split("|").map((part) => part.trim());
  const usable = question !== "" && choices.length >= 2 && choices.length <= 9 && choices.every((choice) => choice !== "");
  if (!usable) signalbox.reject("usage", commands.poll!.help);
  // Each poll has its own ID, so that votes for the previous poll do not count for it.
  const id = signalbox.store.increment(`polls:${room}`, 1);
  const poll: Poll = { id, question, choices };
  signalbox.store.set(`poll:${room}`, JSON.stringify(poll), POLL_SECONDS);
  return [toRoom(room, "poll.opened", { by: message.sender, question, choices })];
}

function vote(words: string, message: Message): Action[] {
  const room = roomOf(message);
  const text = signalbox.store.get(`poll:${room}`);
  if (text === null) signalbox.reject("no_poll", "there is no poll in this room; /poll opens one");
  const poll = JSON.parse(text) as Poll;
  const choice = Number(words);
  if (!Number.isInteger(choice) || choice < 1 || choice > poll.choices.length) {
    signalbox.reject("no_such_choice", `vote 1 to ${poll.choices.length}`);
  }
  // If a user votes twice at the same time, only one vote succeeds.
  const first = signalbox.store.compareAndSwap(`voted:${room}:${poll.id}:${message.sender}`, null, words, POLL_SECONDS);
  if (!first) signalbox.reject("voted_already", "one vote each");
  const votes = signalbox.store.increment(`votes:${room}:${poll.id}:${choice}`, 1, POLL_SECONDS);
  return [toRoom(room, "poll.count", { choice: poll.choices[choice - 1], votes })];
}

function roomOf(message: Message): string {
  if (message.destination?.tag === "room") return message.destination.val;
  return signalbox.reject("no_room", "this command is for a room");
}

const toRoom = (room: string, type: string, payload: unknown) =>
  signalbox.announce(signalbox.draft(type, signalbox.room(room), payload));

export const events: Events = signalbox.guard({ eventTypes: () => ["command"], handle });
