"""The calls of `replyline` that README and docs show, and an example of every command there is."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "gateway/README.md",
    *sorted(str(file.relative_to(ROOT)) for file in (ROOT / "docs").glob("*.md") if file.name != "cli.md"),
)

# Run in this order on the records of `make_everything`; names in braces are ids of theirs. A command that can print JSON is run
# a second time with --json, unless its example already says so.
EXAMPLES = """
version
settings
settings --values
migrate
customers create --name Acme --price 79
customers list
customers show {customer_id}
customers set {customer_id} --name "Blum" --price 99
customers new-key {customer_id} --name server
api-keys list --customer {customer_id}
api-keys revoke {key_id} --customer {customer_id}
audit
audit --customer {customer_id} --limit 10
chatbots create --customer {customer_id} --name "Acme's bot" --provider openai_compatible --model gpt-4o-mini \
    --base-url https://api.openai.com/v1 --provider-key @{file}
chatbots list --customer {customer_id}
chatbots show {chatbot_id}
chatbots set {chatbot_id} --provider-key @{file} --customer {customer_id} --reference test-bot-id
channels create --customer {customer_id} --chatbot {chatbot_id} --kind WIDGET --name Shop \
    --config allowed_origins=https://shop.example
channels create --customer {customer_id} --chatbot {chatbot_id} --kind WHATSAPP_CLOUD --external-id 106540352242999 \
    --secret app_secret=@{file} --secret verify_token=a-verify-token --secret access_token=@{file} --json
channels create --customer {customer_id} --chatbot {chatbot_id} --kind WHATSAPP_QR --external-id front-desk \
    --config gateway_url=http://127.0.0.1:9 --secret secret=@{file} --secret gateway_token=@{file} --json
channels list --customer {customer_id}
channels list --unhealthy
channels list
channels show {channel_id}
channels show {channel_id} --customer {customer_id}
channels set {channel_id} --secret access_token=@{file}
channels config WHATSAPP_CLOUD
channels config WIDGET
channels resume {channel_id}
channels resume {channel_id} --customer {customer_id}
channels unread {channel_id}
channels unread {channel_id} --customer {customer_id}
conversations list --customer {customer_id}
conversations show {conversation_id}
conversations owner {conversation_id} HUMAN
conversations owner {conversation_id} BOT --customer {customer_id}
conversations say {conversation_id} "We close at six." --keep-bot
knowledge create --customer {customer_id} --chatbot {chatbot_id} {file} --title "Prices" --json
knowledge list --customer {customer_id}
knowledge show {document_id}
knowledge set {document_id} {file} --json
webhooks create --customer {customer_id} http://127.0.0.1:9/hooks --events message.sent
webhooks list --customer {customer_id}
webhooks show {endpoint_id}
webhooks set {endpoint_id} --disable
webhooks events --customer {customer_id} --status FAILED
usage --customer {customer_id} --days 7
trace {message_id}
trace {job_id}
queues
queues pause ai-processing
queues resume ai-processing
workers
external list
external list --lost
redis-cli KEYS bull:*
redis-cli ZCARD bull:incoming-messages:prioritized
redis-cli HGETALL bull:incoming-messages:{job_id}-0
dead-letters list
dead-letters list --queue whatsapp-cloud-send --reason undeliverable
dead-letters show {job_id}
dead-letters replay {job_id} --json
dead-letters replay --all --reason provider_auth
dead-letters discard --all --queue ai-processing --yes
dead-letters discard --all --yes --json
channels delete {spare_channel_id} --yes
knowledge delete {spare_document_id} --yes
webhooks delete {endpoint_id} --yes
chatbots delete {chatbot_id} --yes
customers delete {customer_id} --yes
customers deletions
""".replace("\\\n", " ")

# Commands that run for long or need a server outside, and the tests that run them; `start` runs api, worker and standins.
ELSEWHERE = {
    "start": "tests/cli/test_start.py",
    "api": "tests/cli/test_start.py",
    "worker": "tests/cli/test_start.py",
    "standins": "tests/cli/test_start.py",
    "send": "tests/cli/test_start.py",
    "channels session": "tests/cli/test_start.py",
    # Settling and sending again need a job that a worker of others has taken; the routes of the same name are tried there.
    "external settle": "tests/web/test_external_jobs.py",
    "external again": "tests/web/test_external_jobs.py",
    "evolution": "tests/evolution/test_adapter.py",
}

_BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
_INLINE = re.compile(r"`(replyline [a-z][^`\n]*(?:\n[^`\n]+)?)`")
_COMMENT = re.compile(r"\s#.*")
_OPTION = re.compile(r"--[a-z-]+")


def examples() -> list[str]:
    """Every example, a line each."""
    return [" ".join(line.split()) for line in EXAMPLES.splitlines() if line.strip()]


def documented() -> Iterator[tuple[str, str]]:
    """Every call that a page shows, as (page, call without `replyline`)."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for block in _BLOCK.findall(text):
            for line in _COMMENT.sub("", block.replace("\\\n", " ")).splitlines():
                if line.startswith("replyline "):
                    yield page, line.removeprefix("replyline ")
        for call in _INLINE.findall(text):
            yield page, " ".join(call.split()).removeprefix("replyline ")


def path_of(call: str, commands: Mapping[str, frozenset[str]]) -> str:
    """The command that a call is of, behind its group; `commands` are all there are, with what each group has."""
    first, second, *_ = [*call.split(), "", ""]
    return f"{first} {second}" if second in commands.get(first, ()) else first


def options_of(call: str) -> set[str]:
    """The options that a call uses."""
    return set(_OPTION.findall(call))
