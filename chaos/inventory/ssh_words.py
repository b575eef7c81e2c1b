"""Words of the `ssh` command, as `ansible_ssh_common_args` has them → what a connection needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

#: Options of one letter that take a value.
_VALUED = "BbcDEeFIiJLlmOoPpQRSWw"
_OPTIONS = {
    "proxyjump": "jump",
    "userknownhostsfile": "known_hosts",
    "identityfile": "key_file",
    "port": "port",
    "user": "user",
}
_LETTERS = {"J": "jump", "F": "ssh_config", "i": "key_file", "p": "port", "l": "user"}
#: Options that change nothing for one connection that is held open.
_HARMLESS = frozenset(
    (
        *("controlmaster", "controlpersist", "controlpath", "serveraliveinterval", "tcpkeepalive"),
        *("serveralivecountmax", "connecttimeout", "batchmode", "loglevel", "compression"),
        *("identitiesonly", "forwardagent", "preferredauthentications", "passwordauthentication"),
    )
)


@dataclass(frozen=True, slots=True)
class SshWords:
    """What the words say.

    Attributes:
        jump: Hosts to go through, as `ssh -J` takes them.
        known_hosts: File of host keys.
        ssh_config: File of client settings.
        key_file: Private key.
        port: SSH port as text.
        user: Login name.
        ignored: Words that are not followed, such as `-o ProxyCommand=…`.
    """

    jump: str = ""
    known_hosts: str = ""
    ssh_config: str = ""
    key_file: str = ""
    port: str = ""
    user: str = ""
    ignored: tuple[str, ...] = ()


def read_ssh_words(words: Sequence[str]) -> SshWords:
    """Read the words; the first that says something decides, as in ssh.

    Examples:
        >>> read_ssh_words(["-o", "ProxyJump=bastion", "-oUserKnownHostsFile=/k", "-C"])
        SshWords(jump='bastion', known_hosts='/k', ssh_config='', key_file='', port='', user='', \
ignored=())
        >>> read_ssh_words(["-o", "StrictHostKeyChecking=no", "-o", "ControlMaster=auto"]).ignored
        ('-o StrictHostKeyChecking=no',)
    """
    found: dict[str, str] = {}
    ignored: list[str] = []
    for letter, value in _options(words):
        name, _, rest = value.partition("=") if "=" in value else value.partition(" ")
        if letter == "o" and name.strip().lower() in _OPTIONS:
            found.setdefault(_OPTIONS[name.strip().lower()], rest.strip())
        elif letter in _LETTERS:
            found.setdefault(_LETTERS[letter], value)
        elif letter not in "Cqv46aAxXnTt" and not (
            letter == "o" and name.strip().lower() in _HARMLESS
        ):
            ignored.append(f"-{letter} {value}".strip() if letter != " " else value)
    return SshWords(**found, ignored=tuple(ignored))


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every option's letter and value; a bare word has no letter."""
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("-") or word == "-":
            yield " ", word
            continue
        for at, letter in enumerate(word[1:], 2):
            if letter in _VALUED:
                yield letter, word[at:] or (left.pop(0) if left else "")
                break
            yield letter, ""
