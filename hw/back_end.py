"""The back end of the accelerator: from the array's sums to the activation memory and the output, and the input."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import wiring

from zeroskip.compiler.program import Program, Storage
from zeroskip.compiler.timing import LOADER, argmax_cycles, post_cycles
from zeroskip.hw.argmax import ArgMax
from zeroskip.hw.array import Array
from zeroskip.hw.control import Control, RomReaders
from zeroskip.hw.crossbar import Crossbar
from zeroskip.hw.gather import Gather
from zeroskip.hw.memory import ActivationBank, RomReader
from zeroskip.hw.pipeline import delay
from zeroskip.hw.postprocess import PostProcessor
from zeroskip.hw.stream_ports import Loader, OutputBuffer
from zeroskip.hw.writer import Writer

__all__ = ["BackEnd"]


class BackEnd:
    """All that writes activations, in the module of the accelerator.

    Parameters
    ----------
    program : Program
    control : Control
    roms : RomReaders
    writer : Writer
    i, o, trace : the ports of the accelerator
    """

    def __init__(
        self,
        program: Program,
        control: Control,
        roms: RomReaders,
        writer: Writer,
        *,
        i: wiring.PureInterface,
        o: wiring.PureInterface,
        trace: wiring.PureInterface,
    ) -> None:
        self.program = program
        self.config = program.config
        self.control = control
        self.roms = roms
        self.writer = writer
        self.i = i
        self.o = o
        self.trace = trace
        self.post_cycles = post_cycles(program.config)
        self.thresholds = [program.rom(f"thresholds_{stage}") for stage in range(program.config.search_stages)]

    def build(self, m: Module, array: Array, gathers: list[Gather]) -> tuple[OutputBuffer, Value]:
        """Add writer, post-processors, loader, banks and output buffer; return the latter and when it is complete."""
        config, writer, back = self.config, self.writer, self.control.back
        m.submodules.writer = writer
        places = self.roms.add(m, "places")
        m.d.comb += [
            writer.descriptor.eq(back),
            writer.start.eq(self.control.back_sequencer.start),
            writer.advance.eq(array.o_valid),
            places.addr_0.eq(writer.place_addr),
            writer.place_data.eq(places.data_0),
            self.control.back_sequencer.done.eq(delay(m, writer.done & writer.advance, 1)),
        ]
        values = self._build_posts(m, array)
        late = self.post_cycles - Writer.address_cycles
        addresses = [delay(m, writer.address[index], late) for index in range(config.geometry.results)]
        valid = delay(m, writer.inside, late)
        loader = self._build_loader(m, array.o_valid)
        self._build_banks(m, gathers, addresses, values, valid, loader)
        buffer, complete = self._build_output(m, addresses[0], values, valid)
        odd = Signal()
        with m.If(self.control.back_sequencer.finished):
            m.d.sync += odd.eq(~odd)
        m.d.comb += [
            self.trace.odd.eq(odd),
            self.trace.valid.eq(valid),
            self.trace.layer.eq(self.control.back_sequencer.index),
            self.trace.channel.eq(delay(m, writer.channel, self.post_cycles)),
            self.trace.place.eq(delay(m, writer.position, self.post_cycles)),
            self.trace.data.eq(Cat(*values)),
        ]
        return buffer, complete

    def _build_posts(self, m: Module, array: Array) -> list[Value]:
        """Build the post-processors and their images.

        Results that leave together belong to one channel, or each has an entry of its own in the bias word.
        """
        program, config, writer = self.program, self.config, self.writer
        bias = program.rom("bias") if config.has_scales else None
        entry = self.roms.add(m, "bias") if config.has_scales else None
        if entry is not None:
            m.d.comb += entry.addr_0.eq(writer.bias_addr)
        readers: list[RomReader] = []
        values = []
        for index in range(config.geometry.results):
            post = PostProcessor(config, self.control.back.shape(), bias, self.thresholds, len(writer.bias_addr))
            m.submodules[f"post_{index}"] = post
            m.d.comb += [post.descriptor.eq(self.control.back), post.i.eq(array.o[index]), post.first.eq(writer.first)]
            if entry is not None:
                slot = index if config.has_row_words else 0
                m.d.comb += post.entry.eq(entry.data_0.word_select(slot, len(post.entry)))
            if self.thresholds:
                m.d.comb += post.channel.eq(writer.bias_addr)
                # all results compare with the first threshold of their channel, then each with its own
                shared = readers[:1]
                readers = [*shared, *(self.roms.add(m, rom.name, index) for rom in self.thresholds[len(shared) :])]
            for stage, reader in enumerate(readers):
                if stage or not index:
                    m.d.comb += reader.addr_0.eq(getattr(post, f"addr_{stage}"))
                m.d.comb += getattr(post, f"data_{stage}").eq(reader.data_0)
            values.append(post.o)
        return values

    def _build_loader(self, m: Module, drained: Value) -> Loader:
        program, config = self.program, self.config
        layout = program.layouts[program.model.input]
        tensor = program.model.tensors[program.model.input]
        names = [name for name in ("arrival_rows", "arrival_columns") if program.has_rom(name)]
        tables = {name: program.rom(name) for name in names}
        loader = Loader(layout, tensor.shape[0], config.geometry.lanes, config.position_bits, tables)
        m.submodules.loader = loader
        sequencer = self.control.front_sequencer
        parameters = self.control.parameters
        if parameters is not None and parameters.paging.flash is None:
            # the host sends both
            wiring.connect(m, wiring.flipped(self.i), parameters.i)
            wiring.connect(m, parameters.inputs, loader.i)
        else:
            wiring.connect(m, wiring.flipped(self.i), loader.i)
        m.d.comb += [
            loader.release.eq(sequencer.ended & self.control.front.release_input),
            loader.take.eq(sequencer.start & (sequencer.index == 0)),
            loader.busy.eq(delay(m, drained, self.post_cycles - LOADER)),
            sequencer.loaded.eq(loader.loaded),
        ]
        for name in names:
            reader = self.roms.add(m, name)
            m.d.comb += [
                reader.addr_0.eq(getattr(loader, f"{name}_addr")),
                getattr(loader, f"{name}_data").eq(reader.data_0),
            ]
        return loader

    def _build_banks(
        self,
        m: Module,
        gathers: list[Gather],
        addresses: list[Value],
        values: list[Value],
        valid: Value,
        loader: Loader,
    ) -> None:
        """Every core's copy of the banks, and the crossbar in front of them."""
        config, back = self.config, self.control.back
        source = self.program.layouts[self.program.model.input]
        slow = back.slow if config.has_slow else 0
        # copies of their own: the descriptor is far from the banks, and still that of the values that pass
        to_output, replicated = delay(m, back.to_output, 1), delay(m, back.replicated, 1)
        crossbar = Crossbar(config, replicated_input=source.storage is Storage.REPLICATED)
        m.submodules.crossbar = crossbar
        m.d.comb += [
            crossbar.valid.eq(valid & ~to_output.replicate(config.geometry.results)),
            crossbar.replicated.eq(replicated),
            *([crossbar.wide.eq(delay(m, back.replicated & ~slow, 1))] if config.has_wide_writes else []),
            crossbar.load.eq(loader.valid),
            crossbar.load_address.eq(loader.address),
            crossbar.load_value.eq(loader.data),
        ]
        for index, (address, value) in enumerate(zip(addresses, values, strict=True)):
            m.d.comb += [crossbar.address[index].eq(address), crossbar.value[index].eq(value)]
        for lane in range(config.geometry.lanes):
            for core, gather in enumerate(gathers):
                bank = ActivationBank(config.activation_depth, config.bank_bytes)
                m.submodules[f"bank_{core}_{lane}"] = bank
                m.d.comb += [
                    bank.read_addr.eq(gather.bank_addr[lane]),
                    gather.bank_data[lane].eq(bank.read_data),
                    bank.write_addr.eq(crossbar.write_addr[lane]),
                    bank.write_data.eq(crossbar.write_data[lane]),
                    bank.write_en.eq(crossbar.write_en[lane]),
                ]

    def _build_output(self, m: Module, address: Value, values: list[Value], valid: Value) -> tuple[OutputBuffer, Value]:
        """Buffer the output: a value or, of a wide output, all results of a cycle at the first one's address."""
        parts = self.config.geometry.results if self.config.has_wide_output else 1
        size = self.config.output_size
        buffer = OutputBuffer(size, size if self.config.argmax_size else parts)
        m.submodules.output_buffer = buffer
        wiring.connect(m, buffer.o, wiring.flipped(self.o))
        # with the last result, or with the number of the largest
        complete = delay(m, self.control.back_sequencer.finished, argmax_cycles(self.config))
        # from the last layer's start the buffer belongs to its inference, though nothing is in it yet
        sequencer, filling = self.control.front_sequencer, Signal()
        with m.If(complete):
            m.d.sync += filling.eq(0)
        with m.Elif(sequencer.start & (sequencer.index == len(self.program.layers) - 1)):
            m.d.sync += filling.eq(1)
        en = valid[:parts] & self.control.back.to_output.replicate(parts)
        if self.config.argmax_size:
            self._build_argmax(m, buffer, complete, en, address, values[:parts])
        else:
            m.d.comb += [
                buffer.write_en.eq(delay(m, en, 1)),
                buffer.write_addr.eq(delay(m, address[(parts - 1).bit_length() :], 1)),
                buffer.write_data.eq(delay(m, Cat(*values[:parts]), 1)),
            ]
        m.d.comb += [buffer.start.eq(complete), sequencer.output_free.eq(buffer.free & ~filling)]
        return buffer, complete

    def _build_argmax(
        self, m: Module, buffer: OutputBuffer, complete: Value, en: Value, address: Value, values: list[Value]
    ) -> None:
        """Find the largest result and write its number as soon as it is known."""
        model = self.program.model
        argmax = ArgMax(self.config.argmax_size, len(values), is_signed=model.tensors[model.results].signed)
        m.submodules.argmax = argmax
        m.d.comb += [
            argmax.en.eq(en),
            argmax.number.eq(address),
            argmax.data.eq(Cat(*values)),
            argmax.take.eq(complete),
            buffer.write_en.eq(complete.replicate(self.config.output_size)),
            buffer.write_data.eq(argmax.index),
        ]
