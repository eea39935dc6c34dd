# Sourced by build.sh: Kafka's broker, the real one, as jars from Maven Central. Start it with `java -cp FOLDER/*`.
PEERS="$PEERS kafka"

build_kafka() {
  need mvn maven
  need java default-jre-headless
  mvn -q -B -C -Dstyle.color=never -f kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$out" >&2
  local sums=$PWD/kafka/SHA256SUMS
  (cd "$out" && sha256sum --quiet --check "$sums" && [ "$(ls | wc -l)" = "$(wc -l < "$sums")" ]) >&2
}
