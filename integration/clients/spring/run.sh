maven_jars jars.txt spring || return
classes=$cache/spring/classes
mkdir -p "$classes" && javac -d "$classes" -cp "$classpath" Spring.java ../java/Checks.java || return
program 'Spring AMQP' 3.2.7 scenarios java -cp "$classes:$classpath" Spring
