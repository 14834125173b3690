#!/bin/bash
# Keeps running, on the head of a cluster, the MLflow server that all nodes write to, and
# optuna-dashboard for who comes by SSH.
#
#   ONESTEP_HOME=/mnt/onestep head_services.sh ADDRESS
#
# ADDRESS is the head's in the network of the cluster; MLflow asks nobody for a password, and so
# listens on no other. optuna-dashboard listens on the head's loopback alone. What runs already is
# left alone, and what ends is started again. Logs lie in $ONESTEP_HOME/services.
set -euo pipefail
address=${1:?the address of the head in the network of the cluster}
home=${ONESTEP_HOME:?the folder that all nodes share}
mlflow_port=${MLFLOW_PORT:-5000}
optuna_port=${OPTUNA_PORT:-8080}
mkdir -p "$home/services" "$home/artifacts"

# keep NAME COMMAND...: a lock of this machine says whether NAME runs, and ends with it.
keep() {
    local name=$1
    shift
    setsid --fork flock --nonblock --conflict-exit-code 0 "${XDG_RUNTIME_DIR:-/tmp}/onestep-$name.lock" \
        bash -c 'while true; do "$@" || true; sleep 5; done' "$name" "$@" \
        >>"$home/services/$name.log" 2>&1 </dev/null
}

keep mlflow mlflow server --host "$address" --port "$mlflow_port" --workers 1 \
    --backend-store-uri "sqlite:///$home/mlflow.db" --artifacts-destination "$home/artifacts" \
    --allowed-hosts "$address:$mlflow_port,localhost:$mlflow_port,127.0.0.1:$mlflow_port"
# It cannot open a database that no sweep has made yet.
keep optuna-dashboard bash -c 'until [ -s "$1" ]; do sleep 5; done
    exec optuna-dashboard --host 127.0.0.1 --port "$2" "sqlite:///$1"' \
    optuna-dashboard "$home/optuna.db" "$optuna_port"
