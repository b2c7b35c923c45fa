# shellcheck shell=bash
# helm: a chart made, pushed, pulled and shown. Sourced by scripts/test-clients.

push_a_chart_with_helm() {
  rm -rf "$work/helm"
  mkdir -p "$work/helm"
  (cd "$work/helm" && helm create chart && helm package chart)
  # shellcheck disable=SC2154 # speak sets it
  helm push "$work/helm/chart-0.1.0.tgz" "oci://$1/helm" "${plain_http[@]}" 2>&1 | tee "$work/helm/push"
  expect helm/chart 0.1.0 "$(sed -n 's/^Digest: //p' "$work/helm/push")"
}

pull_the_chart_with_helm() {
  rm -rf "$work/helm/pulled"
  mkdir "$work/helm/pulled"
  helm pull "oci://$1/helm/chart" --version 0.1.0 "${plain_http[@]}" --destination "$work/helm/pulled"
  cmp "$work/helm/chart-0.1.0.tgz" "$work/helm/pulled/chart-0.1.0.tgz"
}

# Without a version helm reads the tags.
show_the_chart_with_helm() {
  helm show chart "oci://$1/helm/chart" "${plain_http[@]}" | grep -x 'version: 0.1.0'
}

helm_push_all() {
  client helm "helm pushes a chart" push_a_chart_with_helm "$1"
}

helm_pull_all() {
  client helm "helm pulls the chart it pushed" pull_the_chart_with_helm "$1"
  client helm "helm finds the chart's version by the tags" show_the_chart_with_helm "$1"
}
