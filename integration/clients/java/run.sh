maven_jars jars.txt java || return
classes=$cache/java/classes
mkdir -p "$classes" && javac -Xlint:all -Werror -d "$classes" -cp "$classpath" Checks.java Scenarios.java Extensions.java || return
program amqp-client 5.37.1 scenarios java -cp "$classes:$classpath" Scenarios
program amqp-client 5.37.1 extensions java -cp "$classes:$classpath" Extensions
