"""From a file to a fabric: roles, addresses, links; the shipped fabrics; what is left out."""

import ipaddress
import re
import tomllib
from pathlib import Path

import pytest

from chaos import shipped
from chaos.errors import SpecError
from chaos.fabric import Port
from chaos.topology import lab_json, load, load_lab, to_fabric
from chaos.topology.envfile import read_env
from chaos.topology.envsubst import substitute
from chaos.topology.goeval import render

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"


@pytest.fixture
def topology(tmp_path):
    """Writes a topology file and returns its path.

    Example: `load(topology("leaf1: {group: leaf}"))`
    """

    def write(nodes, links="", top=""):
        body = "\n".join(f"    {line}" for line in nodes.splitlines())
        text = f"name: t\n{top}topology:\n  defaults: {{kind: linux, image: alpine:3}}\n"
        file = tmp_path / "t.clab.yml"
        file.write_text(f"{text}  nodes:\n{body}\n  links:\n{links}")
        return str(file)

    return write


class TestShipped:
    def test_names(self):
        assert shipped.fabric_names() == ("clos-2x4x8", "clos-graceful", "pair", "rails-2x4")
        assert "local_link_down" in shipped.experiment_names()
        assert shipped.experiment_path("local_link_down").is_file()
        assert shipped.experiment_path("no_such_thing") is None

    def test_a_wheel_holds_them_where_the_code_looks(self, tmp_path, monkeypatch):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
        (tmp_path / "wheel").mkdir()
        (tmp_path / "wheel" / "containerlab").symlink_to(ROOT / "containerlab")

        assert included == {"containerlab": f"chaos/{shipped._WHEEL.name}/containerlab"}
        monkeypatch.setattr(shipped, "_CHECKOUT", tmp_path / "none")
        monkeypatch.setattr(shipped, "_WHEEL", tmp_path / "wheel")
        assert shipped.fabric_path("pair").is_file()

    @pytest.mark.parametrize("name", shipped.fabric_names())
    def test_each_is_whole_without_warnings_and_has_its_readme(self, name):
        lab = load_lab(name, environ={})

        assert (lab.warnings, lab.refusals, lab.checks) == ((), (), ())
        assert (lab.folder / "README.md").read_text().startswith(f"# {name}\n")
        for node in lab.nodes.values():
            assert node.fields["network-mode"] == "none", "lab traffic must not reach the machine"
            assert node.fields["privileged"] is False

    def test_clos(self):
        fabric = load("clos-2x4x8", environ={})

        assert {role: len(fabric.with_role(role)) for role in fabric.roles} == {
            "spine": 2,
            "leaf": 4,
            "host": 8,
        }
        assert len(fabric.select_links("leaf--spine")) == 8
        assert len(fabric.select_links("host--leaf")) == 8
        assert {fabric.nodes[n].runs for n in ("spine1", "leaf4", "host8")} == {"frr", "shell"}
        for number in range(1, 9):
            link = fabric.link_at(Port(f"host{number}", "eth1"))
            assert link.other(Port(f"host{number}", "eth1")).node == f"leaf{(number + 1) // 2}"
            assert fabric.nodes[f"host{number}"].addresses == {"eth1": (f"10.0.{number}.1/31",)}

    def test_each_host_of_clos_has_its_gateway_on_its_leaf(self):
        fabric = load("clos-2x4x8", environ={})

        for host in fabric.with_role("host"):
            link = fabric.link_at(Port(host.name, "eth1"))
            leaf = link.other(Port(host.name, "eth1"))
            gateways = frr_addresses(fabric.nodes[leaf.node])[leaf.name]
            mine = ipaddress.ip_interface(host.addresses["eth1"][0])
            assert [ipaddress.ip_interface(g).network for g in gateways] == [mine.network]
            via = f"ip route add 10.0.0.0/8 via {ipaddress.ip_interface(gateways[0]).ip}"
            assert via in host.settings["exec"]

    def test_bgp_of_clos_runs_on_every_fabric_link_and_only_there(self):
        fabric = load("clos-2x4x8", environ={})

        numbers = set()
        for node in (*fabric.with_role("spine"), *fabric.with_role("leaf")):
            text = frr_conf(node)
            peers = set(re.findall(r"neighbor (\S+) interface peer-group fab", text))
            between = {
                link.port_of(node.name).name
                for link in fabric.links_of(node.name)
                if all(fabric.nodes[other].role != "host" for other in link.nodes)
            }
            assert peers == between
            assert "no zebra nexthop kernel enable" in text
            assert ("neighbor fab passive" in text) == (node.role == "spine")
            assert f"hostname {node.name}\n" in text
            numbers.add((node.role, re.search(r"router bgp (\d+)", text)[1]))
        assert numbers == {("spine", "65000"), *(("leaf", f"6500{at}") for at in range(1, 5))}

    def test_rails_share_nothing(self):
        fabric = load("rails-2x4", environ={})

        for rail in ("1", "2"):
            links = [link for link in fabric.links if link.labels["rail"] == rail]
            assert len(links) == 4
            assert {fabric.nodes[n].name for li in links for n in li.nodes if "leaf" in n} == {
                f"leaf{rail}"
            }
            assert {li.port_of(n).name for li in links for n in li.nodes if "host" in n} == {
                f"eth{rail}"
            }
        for host in fabric.with_role("host"):
            networks = {
                port: [ipaddress.ip_interface(text) for text in texts]
                for port, texts in host.addresses.items()
            }
            assert networks["eth1"][0] in ipaddress.ip_network("10.1.0.0/16")
            assert networks["eth2"][0] in ipaddress.ip_network("10.2.0.0/16")

    def test_images_can_be_chosen_by_the_environment(self):
        lab = load_lab("clos-2x4x8", environ={"FRR_IMAGE": "frr:lab", "HOST_IMAGE": ""})

        assert lab.nodes["leaf1"].fields["image"] == "frr:lab"
        assert lab.nodes["host1"].fields["image"] == "ghcr.io/srl-labs/network-multitool:latest"


def frr_conf(node):
    bound = dict(text.split(":")[1::-1] for text in node.settings["binds"])
    return Path(bound["/etc/frr/frr.conf"]).read_text()


def frr_addresses(node):
    """Addresses per interface of a node's frr.conf."""
    found, interface = {}, ""
    for line in frr_conf(node).splitlines():
        if line.startswith("interface "):
            interface = line.split()[1]
        elif line.strip().startswith("ip address "):
            found.setdefault(interface, []).append(line.split()[2])
    return found


class TestOthersLabs:
    """Labs that other people published; read in place."""

    @pytest.mark.parametrize(
        ("path", "roles", "links"),
        [
            ("labs/frr01/frr01.clab.yml", {"router": 3, "host": 3}, 6),
            ("labs/bgp-ebgp-basics/topology.clab.yml", {"router": 4}, 3),
            (
                "containerlab-recorded/labs/clos/clos.clab.yml",
                {"spine": 2, "leaf": 4, "host": 8},
                16,
            ),
        ],
    )
    def test_roles_and_links(self, path, roles, links):
        if not (SHARED / path).is_file():
            pytest.skip(f"no lab at {SHARED / path}")

        fabric = load(str(SHARED / path), environ={})

        assert {role: len(fabric.with_role(role)) for role in fabric.roles} == roles
        assert len(fabric.links) == links
        routers = [node for node in fabric.nodes.values() if node.role != "host"]
        assert {node.runs for node in routers} == {"frr"}
        assert {node.runs for node in fabric.with_role("host")} <= {"shell"}


class TestRoles:
    @pytest.mark.parametrize(
        ("node", "role"),
        [
            ("x1: {labels: {role: gateway}, group: leaf}", "gateway"),
            ("x1: {group: leaves}", "leaf"),
            ("x1: {group: hosts}", "host"),
            ("x1: {group: 'rack1, spine'}", "spine"),
            ("tor3: {}", "leaf"),
            ("superspine1: {}", "superspine"),
            ("gpu-07: {}", "host"),
            ("leafy: {}", "host"),
            ("r1: {image: 'quay.io/frrouting/frr:10.1'}", "router"),
            ("a: {}", "host"),
            ("b: {kind: bridge}", "switch"),
        ],
    )
    def test_from_label_then_group_then_name_then_what_it_runs(self, topology, node, role):
        fabric = load(topology(node), environ={})

        assert [found.role for found in fabric.nodes.values()] == [role]

    @pytest.mark.parametrize(
        ("node", "runs"),
        [
            ("a: {image: 'frr:lab'}", "frr"),
            ("a: {image: 'frr:lab', cmd: sleep infinity}", "shell"),
            ("a: {image: 'x', cmd: 'sh -c \"/usr/lib/frr/frrinit.sh start\"'}", "frr"),
            ("a: {image: 'frr.example/alpine:3'}", "shell"),
            ("a: {kind: frr}", "frr"),
            ("a: {binds: ['t.clab.yml:/etc/frr/frr.conf']}", "frr"),
        ],
    )
    def test_what_a_node_runs(self, topology, node, runs):
        assert load(topology(node), environ={}).nodes["a"].runs == runs


class TestLinks:
    def test_ids_are_sorted_ends_and_macs_follow_their_ends(self, topology):
        fabric = load(
            topology(
                "spine1:\nleaf1:",
                """    - type: veth
      endpoints:
        - {node: spine1, interface: eth1, mac: "02:00:00:00:00:01"}
        - {node: leaf1, interface: eth9}
      vars: {speed: 400g}
""",
            )
        )

        assert fabric.links[0].id == "leaf1:eth9--spine1:eth1"
        assert fabric.links[0].macs == ("", "02:00:00:00:00:01")
        assert fabric.links[0].vars == {"speed": "400g"}
        assert fabric.select_links("leaf--spine") == fabric.links

    def test_parallel_links_keep_file_order(self, topology):
        fabric = load(
            topology(
                "a:\nb:",
                '    - endpoints: ["a:eth2", "b:eth2"]\n    - endpoints: ["b:eth1", "a:eth1"]\n',
            )
        )

        assert fabric.link("a--b#2").id == "a:eth1--b:eth1"

    def test_a_dummy_has_one_port(self, topology):
        fabric = load(topology("a:", "    - {type: dummy, endpoint: {node: a, interface: lo1}}\n"))

        assert [link.id for link in fabric.links] == ["a:lo1"]


class TestLeftOut:
    def test_one_warning_per_field_names_its_nodes(self, topology):
        file = topology(
            "a: {memory: 1gb, user: root}\nb: {memory: 2gb, exec: [apk add iperf3, id]}"
        )

        lab = load_lab(file)

        assert lab.warnings == (
            "user: left out on a: commands run as the user that made the fabric",
            "memory: left out on a, b: no limit is set",
            "exec (apk, apt-get, …): left out on b: programs come from the machine; "
            "install them there",
        )
        assert to_fabric(lab).nodes["b"].settings["exec"] == ["id"]

    def test_strict_makes_it_a_refusal(self, topology):
        file = topology("a: {memory: 1gb}")

        load(file)
        with pytest.raises(SpecError, match=r"memory: left out on a: no limit is set \(strict; 1"):
            load(file, strict=True)

    @pytest.mark.parametrize(
        "node",
        [
            "a: {network-mode: 'container:b'}\nb: {}",
            "a: {kind: ovs-bridge}",
            "a: {kind: ext-container}",
            "a: {stages: {create: {exec: [{command: id, target: host}]}}}",
        ],
    )
    def test_what_would_touch_the_machine_is_refused_by_load_alone(self, topology, node):
        file = topology(node)

        assert load_lab(file).refusals
        with pytest.raises(SpecError):
            load(file)


class TestTemplates:
    @pytest.mark.parametrize(
        ("text", "data", "expected"),
        [
            ("{{- /* c */ -}} a {{- 1 -}} b", None, "a1b"),
            ("{{if eq 1 2}}a{{else if eq 1 1}}b{{else}}c{{end}} d", None, "b d"),
            ("{{if false}}a{{else if false}}b{{else}}c{{end}} d", None, "c d"),
            ("{{with $x := 5}}{{$x}}{{else}}no{{end}}", None, "5"),
            ("{{range $k, $v := .}}{{$k}}={{$v}};{{end}}", {"z": 1, "b": 2}, "b=2;z=1;"),
            ("{{range .none}}x{{else}}empty{{end}}", {}, "empty"),
            ("{{range seq 9}}{{if eq . 3}}{{break}}{{end}}{{.}}{{end}}", None, "12"),
            ("{{range seq 3}}{{if eq . 2}}{{continue}}{{end}}{{.}}{{end}}", None, "13"),
            ("{{$y := 1}}{{range seq 3}}{{$y = add $y .}}{{end}}{{$y}}", None, "7"),
            ("{{range $i := 3}}{{$i}}{{end}}", None, "012"),
            ('{{ "x" | printf "%s-%s" "y" }}', None, "y-x"),
            ('{{ printf "%03d|%-4s|%4s|" 7 "ab" "cd" }}', None, "007|ab  |  cd|"),
            ('{{ printf "%v %q %x" true "e" 255 }}', None, 'true "e" ff'),
            ('{{ (index . "z").a }} {{ .z.a }} {{ .no.way }}', {"z": {"a": 1}}, "1 1 <no value>"),
            ("{{ and 1 0 2 }} {{ or 0 3 }} {{ not 0 }}", None, "0 3 true"),
            ('{{define "x"}}<{{.}}>{{end}}{{template "x" 4}}', None, "<4>"),
            ("{{ `a\\b` }} {{ 'a' }} {{ 0x10 }} {{ 1.50 }}", None, "a\\b 97 16 1.5"),
            ("{{ mul 4611686018427387904 2 }}", None, "-9223372036854775808"),
        ],
    )  # fmt: skip
    def test_does_what_go_does(self, text, data, expected):
        assert render(text, data, name="t") == expected

    @pytest.mark.parametrize(
        "text",
        ["{{", "{{ . ", "{{ end }}", "{{ else }}", "{{ if 1 }}", "{{ $x }}", "{{ nope 1 }}",
         "{{ (1 }}", "{{ 1 2 }}", "{{ index (slice 1) 5 }}", "{{ div 1 0 }}", "{{ break }}",
         '{{ template "gone" }}', "{{ range true }}{{ end }}", '{{ lt 1 "a" }}', "{{ eq 1 }}"],
    )  # fmt: skip
    def test_refuses_with_the_way_out(self, text):
        with pytest.raises(SpecError, match="--export-rendered FILE"):
            render(text, None, name="t")

    def test_a_refusal_after_rendering_says_whose_lines_it_counts(self, tmp_path):
        file = tmp_path / "t.clab.yml"
        file.write_text(
            "name: t\ntopology:\n  nodes:\n{{- range seq 2 }}\n"
            "    n{{ . }}: {kind: linus, image: alpine:3}\n{{- end }}\n"
        )

        with pytest.raises(SpecError, match=r":4: .*\(line of the rendered template\)"):
            load(str(file))


def test_json_of_a_lab_is_json():
    import json

    found = lab_json(load_lab("clos-2x4x8", environ={}))

    assert json.loads(json.dumps(found)) == found
    assert found["nodes"]["leaf1"]["networkmode"] == "none"
    assert len(found["links"]) == 16


class TestCorners:
    def test_in_a_list_of_merge_keys_the_first_wins(self, topology):
        lab = load_lab(topology("a: &a {type: one}\nb: &b {type: two, user: x}\nc: {<<: [*a, *b]}"))

        assert lab.nodes["c"].fields["type"] == "one"
        assert lab.nodes["c"].fields["user"] == "x"

    @pytest.mark.parametrize(
        ("head", "expected"),
        [
            ("ref: refs/heads/feature/x\n", "t-feature-x-0123456"),
            ("0123456789abcdef\n", "t-HEAD-0123456"),
            ("ref: refs/heads/packed\n", "t-packed-fedcba9"),
            ("ref: refs/heads/unborn\n", "t-unborn-none"),
        ],
    )
    def test_git_variables_in_the_name(self, tmp_path, head, expected):
        git = tmp_path / ".git"
        (git / "refs" / "heads" / "feature").mkdir(parents=True)
        (git / "HEAD").write_text(head)
        (git / "refs" / "heads" / "feature" / "x").write_text("0123456789abcdef\n")
        (git / "packed-refs").write_text("# pack-refs\nfedcba9876543210 refs/heads/packed\n")
        file = tmp_path / "t.clab.yml"
        file.write_text(
            "name: t-__gitBranch__-__gitHash__\n"
            "topology: {nodes: {a: {kind: linux, image: alpine:3}}}\n"
        )

        assert load_lab(file).name == expected

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("A=1\nB=$A$C${A}x\n", {"A": "1", "B": "11x"}),
            ("A=1\nB='$A' # c\n", {"A": "1", "B": "$A"}),
            ('A=1\nB="a\\n\\$A \\"q\\" $A"\n', {"A": "1", "B": 'a\n$A "q" 1'}),
            ("A=\\$B\nC=$(id)\n", {"A": "$B", "C": "(id)"}),
            ("export  A = x y # c\nB: z\n", {"A": "x y", "B": "z"}),
            ("A=\nB=a#b\n", {"A": "", "B": "a#b"}),
            ('A="two\nlines"\n', {"A": "two\nlines"}),
        ],
    )
    def test_env_files(self, text, expected):
        assert read_env(text, file="f") == expected

    @pytest.mark.parametrize(
        ("text", "said"),
        [("A=1\nno sign\n", "f:2: found 'no sign'"), ('A="x\n', "f:1: found a value whose")],
    )
    def test_wrong_env_files(self, text, said):
        with pytest.raises(SpecError, match=re.escape(said)):
            read_env(text, file="f")

    def test_an_unset_variable_stays_and_dollars_double(self):
        assert substitute("$NONE ${NONE} $$X ${X:+y} ${X+y}", {}) == "$NONE $NONE $X  "
