#!/bin/sh
# Apply an overlay to the cluster that kubectl points at, wait until every node has its agent, and say what next.
set -eu
cd "$(dirname "$0")"

usage() {
    cat <<TEXT
usage: daemonset/deploy.sh --registry REGISTRY [--overlay NAME] [--tag TAG] [--context CONTEXT]
                           [--timeout TIME] [--dry-run]

  --registry  where the images are: REGISTRY/agent and REGISTRY/trainer, pushed from images/*.Dockerfile
  --overlay   one of: $(overlays) (the first time: plain)
  --tag       of both images (default: as the overlay has it)
  --context   kubectl's context (default: the current one)
  --timeout   how long to wait for the agents, ten per cent at a time (default: 30m)
  --dry-run   let the API server check everything and change nothing
TEXT
    exit "$1"
}

overlays() { find overlays -mindepth 1 -maxdepth 1 -type d -exec basename {} \; | sort | tr '\n' ' '; }

fail() {
    echo "error: $1" >&2
    [ -z "${2:-}" ] || echo "try: $2" >&2
    exit 1
}

registry=
overlay=
tag=
context=
timeout=30m
dry_run=
while [ $# -gt 0 ]; do
    case $1 in
        --help) usage 0 ;;
        --dry-run) dry_run=yes; shift; continue ;;
        --registry | --overlay | --tag | --context | --timeout) [ $# -ge 2 ] || usage 2 ;;
        *) usage 2 ;;
    esac
    case $1 in
        --registry) registry=${2%/} ;;
        --overlay) overlay=$2 ;;
        --tag) tag=$2 ;;
        --context) context=$2 ;;
        --timeout) timeout=$2 ;;
    esac
    shift 2
done
case $registry$tag in
    *[!A-Za-z0-9._/:-]*) fail "a registry or tag has letters, digits and . _ - / : only" ;;
esac
[ -z "$overlay" ] || [ -d "overlays/$overlay" ] || fail "there is no overlay $overlay" "one of: $(overlays)"
[ -n "$registry" ] || fail "whose images?" "--registry ghcr.io/you/node-anomaly, after pushing images/agent.Dockerfile there"

cluster() { kubectl ${context:+--context "$context"} "$@"; }

command -v kubectl >/dev/null || fail "kubectl is not installed"
if [ -z "$overlay" ]; then
    # What an overlay lacks is taken away from what runs: TLS, a password, the volume of the bundles.
    ! cluster get daemonset node-anomaly-agent --namespace node-anomaly >/dev/null 2>&1 ||
        fail "node-anomaly is installed already: by which overlay?" "--overlay with one of: $(overlays)"
    overlay=plain
fi
manifest=$(mktemp)
trap 'rm -f "$manifest"' EXIT
kubectl kustomize "overlays/$overlay" >"$manifest" ||
    fail "the overlay cannot be built" "kubectl 1.27 or later; bundles-https wants your bundle.pub beside it"
edit() { sed "$1" "$manifest" >"$manifest.new" && mv -f "$manifest.new" "$manifest"; }
edit "s|image: registry\.example\.org/node-anomaly/|image: $registry/|"
[ -z "$tag" ] || edit "s|\(image: $registry/[a-z]*\):.*|\1:$tag|"

cluster version >/dev/null 2>&1 || fail "no cluster answers" "kubectl config get-contexts, and --context"
for what in namespaces daemonsets.apps priorityclasses.scheduling.k8s.io; do
    cluster auth can-i create "$what" --namespace node-anomaly >/dev/null 2>&1 ||
        fail "you may not create $what" "a context with the right to, or whoever has it"
done
if grep -q '^kind: PodMonitor$' "$manifest"; then
    cluster get customresourcedefinition podmonitors.monitoring.coreos.com >/dev/null 2>&1 ||
        fail "this cluster has no Prometheus operator" "--overlay plain"
fi

if [ -n "$dry_run" ]; then
    # Objects in a namespace that does not exist yet cannot be checked by the server.
    if cluster get namespace node-anomaly >/dev/null 2>&1; then side=server; else side=client; fi
    cluster apply --dry-run="$side" --filename "$manifest"
    echo "checked by the $side, nothing was changed"
    exit 0
fi
cluster apply --filename "$manifest"
if ! cluster rollout status daemonset/node-anomaly-agent --namespace node-anomaly --timeout="$timeout"; then
    cluster get pods --namespace node-anomaly --output wide >&2 || true
    cluster get events --namespace node-anomaly --field-selector type=Warning >&2 || true
    fail "after $timeout not every node has its agent yet; it goes on" \
        "kubectl --namespace node-anomaly rollout status daemonset/node-anomaly-agent, and describe pods"
fi
cat <<TEXT
Every node has its agent. Next:
  kubectl -n node-anomaly exec ds/node-anomaly-agent -- anomaly-agent --version
  kubectl -n node-anomaly port-forward ds/node-anomaly-agent 9917   # then http://localhost:9917/
  in Prometheus: anomaly_score
TEXT
if grep -q '^kind: CronJob$' "$manifest"; then
    cat <<TEXT
The trainer runs on Sundays. To try it now:
  kubectl -n node-anomaly create job --from=cronjob/node-anomaly-trainer first-training
  kubectl -n node-anomaly logs -f job/first-training
TEXT
fi
