import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.vertx.VertxParallelEoSStreamProcessor;
import io.vertx.core.Future;
import io.vertx.core.Promise;
import io.vertx.core.Vertx;
import io.vertx.core.buffer.Buffer;
import io.vertx.core.net.PemTrustOptions;
import io.vertx.ext.web.client.WebClient;
import io.vertx.ext.web.client.WebClientOptions;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/** Confluent Parallel Consumer with Vert.x: a job is complete when its result is acknowledged. */
class Worker {
    public static void main(String[] args) {
        Map<String, String> env = System.getenv();
        int inflight = Integer.parseInt(env.get("INFLIGHT"));
        KafkaConsumer<byte[], String> consumer = new KafkaConsumer<>(
                Map.of("bootstrap.servers", env.get("BOOTSTRAP"), "group.id", env.get("GROUP"),
                        "auto.offset.reset", "earliest", "enable.auto.commit", "false"),
                new ByteArrayDeserializer(), new StringDeserializer());
        KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(
                Map.of("bootstrap.servers", env.get("BOOTSTRAP"), "compression.type", "lz4", "acks", "all"),
                new ByteArraySerializer(), new ByteArraySerializer());
        Vertx vertx = Vertx.vertx();
        WebClient client = WebClient.create(vertx, new WebClientOptions()
                .setMaxPoolSize(inflight)
                .setTrustOptions(new PemTrustOptions().addCertPath(env.get("CA"))));
        var processor = new VertxParallelEoSStreamProcessor<byte[], String>(vertx, client,
                ParallelConsumerOptions.<byte[], String>builder()
                        .consumer(consumer)
                        .ordering(ParallelConsumerOptions.ProcessingOrder.UNORDERED)
                        .maxConcurrency(inflight)
                        .build());
        String results = env.get("RESULTS");
        processor.subscribe(List.of(env.get("JOBS")));
        processor.vertxFuture(job -> client.getAbs(job.value()).timeout(10_000).send()
                .compose(answer -> send(producer, results, job.key(), answer.bodyAsBuffer())));
        Runtime.getRuntime().addShutdownHook(new Thread(processor::closeDontDrainFirst));
    }

    private static Future<Void> send(KafkaProducer<byte[], byte[]> producer, String topic, byte[] key, Buffer body) {
        Promise<Void> acknowledged = Promise.promise();
        producer.send(new ProducerRecord<>(topic, key, body.getBytes()), (where, error) -> {
            if (error == null) {
                acknowledged.complete();
            } else {
                acknowledged.fail(error);
            }
        });
        return acknowledged.future();
    }
}
